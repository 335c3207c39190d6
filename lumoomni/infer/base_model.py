"""The Thinker of a Hugging Face folder or of an artifact: its shape, its hash, and itself.

Knows: which artifact of a line holds what, and that adapters change which base it is.
Does not know: rows, cards, or what is written where. Costs: naming a folder reads its weights once;
an artifact's names are in its manifest. Weights are loaded by `load_base` alone.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from lumoomni.artifacts import MANIFEST, Artifact
from lumoomni.codecs.text import TextCodec
from lumoomni.config import canonical_json, from_dict
from lumoomni.errors import InputError
from lumoomni.infer.assemble import (
    ADOPTED,
    TOKENIZER,
    base_hash,
    checked,
    find_artifact,
    lineage,
    load_part,
    put_adapter,
)
from lumoomni.infer.row_package import TEXT_FILES, base_of, dtype_of
from lumoomni.model.hf_config import config_from_hf, read_config
from lumoomni.model.hf_weights import load_thinker
from lumoomni.model.lora import ADAPTER, merge
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.runtime import atomic_write_json
from lumoomni.uti.space import TokenSpace
from lumoomni.uti.space_file import FILE as SPACE
from lumoomni.uti.space_file import load_space

TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class Line:
    """An artifact and its ancestors, the latest first."""

    artifacts: tuple[Artifact, ...]

    def owner(self, file: str) -> Artifact | None:
        """The latest that has a file."""
        return next((a for a in self.artifacts if file in a.manifest["files"]), None)

    def need(self, file: str) -> Artifact:
        """The same. Raises InputError when none has it."""
        found = self.owner(file)
        if found is None:
            last = self.artifacts[0]
            raise InputError(
                f"{last.path} ({last.kind}) and its ancestors hold no {file}; give an artifact "
                "that was made on one that does"
            )
        return found

    @property
    def adapter(self) -> Artifact | None:
        """Who has adapters for the Thinker, which come after it."""
        made = self.artifacts.index(self.need("thinker.json"))
        return Line(self.artifacts[: made + 1]).owner(f"{ADAPTER}.json")


@dataclass(frozen=True, kw_only=True)
class Base:
    """A Thinker that is not loaded. `line` is None for a folder of others.

    `tokenizer` is the hash of its tokenizer, `space` the token space that it was made in, where
    there is one.
    """

    where: Path
    name: str
    hash: str
    config: ThinkerConfig
    tokenizer: str | None
    space: TokenSpace | None
    line: Line | None


def open_base(path: Path, *, unproven: bool = False) -> Base:
    """Look at a Hugging Face Qwen3 folder, a build directory, or an artifact.

    Raises InputError for what is none of them, or damaged.
    """
    if (path / "config.json").is_file() and not (path / MANIFEST).is_file():
        text = path / TOKENIZER
        return Base(
            where=path,
            name=path.resolve().name,
            hash=base_of(path),
            config=config_from_hf(read_config(path)),
            tokenizer=TextCodec.load(text).hash if text.is_file() else None,
            space=load_space(path) if (path / SPACE).is_file() else None,
            line=None,
        )
    artifact = find_artifact(path, unproven=unproven)
    line = Line(tuple(lineage(artifact, unproven=unproven)))
    owner = line.need("thinker.json")
    text, space = line.owner(TOKENIZER), line.owner(SPACE)
    settings = json.loads(checked(owner, "thinker.json").read_text())
    return Base(
        where=artifact.path,
        name=Path(settings[ADOPTED]).name if ADOPTED in settings else owner.kind,
        hash=name_of(line),
        config=_shape(settings),
        tokenizer=None if text is None else TextCodec.load(checked(text, TOKENIZER)).hash,
        space=None if space is None else load_space(checked(space, SPACE)),
        line=line,
    )


def name_of(line: Line) -> str:
    """SHA-256 that names a line's Thinker; with adapters it is another one than without.

    An adopted one has the hash of its folder (`row_package.base_of`).
    """
    owner, adapter = line.need("thinker.json"), line.adapter
    plain = base_hash(owner)
    if adapter is None:
        return plain
    files = (f"{ADAPTER}.json", f"{ADAPTER}.safetensors")
    parts = {name: adapter.manifest["files"][name]["sha256"] for name in files}
    return hashlib.sha256(canonical_json({"base": plain, **parts}).encode()).hexdigest()


def _shape(settings: dict[str, object]) -> ThinkerConfig:
    if ADOPTED in settings:
        return config_from_hf(read_config(Path(str(settings[ADOPTED]))))
    return from_dict(ThinkerConfig, settings, where="thinker")


def load_base(base: Base) -> Thinker:
    """The Thinker in evaluation mode, in its own type, adapters folded into it."""
    if base.line is None:
        return load_thinker(base.where, dtype_of(base.where)).eval()
    owner, adapter = base.line.need("thinker.json"), base.line.adapter
    thinker = load_part(owner, "thinker")
    assert isinstance(thinker, Thinker)
    if adapter is not None:
        put_adapter(thinker, adapter, owner)
        merge(thinker)
    return thinker.requires_grad_(False).eval()


def copy_text_files(base: Base, folder: Path) -> None:
    """What the base knows of text: a folder's files as they are; of an artifact its tokenizer, with
    the files of the folder that it was adopted from."""
    source = base.where
    if base.line is not None:
        text = base.line.need(TOKENIZER)
        owner = base.line.need("thinker.json")
        settings = json.loads(checked(owner, "thinker.json").read_text())
        source = Path(settings[ADOPTED]) if ADOPTED in settings else None
        shutil.copyfile(checked(text, TOKENIZER), folder / TOKENIZER)
    if source is not None:
        for path in sorted({p for pattern in TEXT_FILES for p in source.glob(pattern)}):
            if path.is_file() and not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)
    if base.line is not None and not (folder / TOKENIZER_CONFIG).is_file():
        # The plain class takes tokenizer.json as it is; Qwen's own would compose accents first.
        settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
        atomic_write_json(folder / TOKENIZER_CONFIG, settings)
