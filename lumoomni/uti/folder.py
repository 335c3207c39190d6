"""A token space's folder, opened: the space, its text codec and its codecs, each hash checked.

Knows: the artifact that `lumo tokens build` or a recipe's stage leaves. Does not know: how it is
made, or models.
Costs: every file is read twice, once to be hashed.
"""

from dataclasses import dataclass
from pathlib import Path

from lumoomni.artifacts import check_files, open_artifact
from lumoomni.codecs.facts import Kind, MediaCodec
from lumoomni.codecs.stored import load_codecs
from lumoomni.codecs.text import TextCodec
from lumoomni.errors import InputError
from lumoomni.uti.space import TokenSpace
from lumoomni.uti.space_file import load_space

KIND, STAGE = "token_space", "build_token_space"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class StoredSpace:
    """What a folder holds."""

    space: TokenSpace
    text_codec: TextCodec
    codecs: dict[Kind, MediaCodec]


def open_folder(folder: Path, *, device: str = "cpu", unproven: bool = False) -> StoredSpace:
    """The codecs work on `device`. With `unproven`, a space that failed its audit is opened too,
    to be audited again.

    Raises InputError for another kind of folder, any changed file, or a failed audit.
    """
    artifact = open_artifact(folder)
    if artifact.kind not in (KIND, STAGE):
        raise InputError(
            f"{folder} is a {artifact.kind}, not a token space; see `lumo tokens build`"
        )
    if not artifact.passed and not unproven:
        raise InputError(
            f"{folder} did not pass its audit; see `lumo tokens audit`, and build it anew"
        )
    problems = check_files(artifact)
    if problems:
        first = problems[0]
        raise InputError(f"{first.where} {first.what}; build the token space again")
    return StoredSpace(
        space=load_space(folder),
        text_codec=TextCodec.load(folder / TOKENIZER),
        codecs=load_codecs(folder, device),
    )
