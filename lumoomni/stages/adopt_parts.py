"""`adopt_parts`: a Thinker and a vision tower that others trained, taken as they are.

Records where they lie and the hash of every file; copies nothing but the tokenizer. Whatever is
built on them names these hashes, and refuses others.
The gate: every tensor that the shapes ask for is there and no other, and the tokenizer fits.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lumoomni.artifacts import hash_file
from lumoomni.codecs.text import TextCodec
from lumoomni.errors import InputError
from lumoomni.gates import Check, Report, exact
from lumoomni.infer.assemble import ADOPTED, ModelSettings, save_settings
from lumoomni.media.mel import MelConfig
from lumoomni.model.hf_weights import inspect_thinker
from lumoomni.model.siglip import load_siglip
from lumoomni.pipeline import StageContext
from lumoomni.runtime import atomic_write_json
from lumoomni.stages.chat_template import mismatch
from lumoomni.uti.sequence import TEMPLATES

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "preprocessor_config.json")

TALK = ("tokenizer*", "chat_template*")


@dataclass(frozen=True, kw_only=True)
class AdoptPartsConfig:
    """`llm` and `vision` are folders or hub ids: Qwen3 or Qwen3-MoE, and SigLIP or SigLIP2."""

    llm: str = ""
    vision: str = ""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    template: str = "chatml"
    """`qwen3` for checkpoints that were tuned to talk: as theirs, with thinking off."""
    context_tokens: int = 2048
    mel: MelConfig = field(default_factory=MelConfig)


def run(context: StageContext) -> Report:
    """Look, hash, and write `thinker.json`, `vision.json`, `tokenizer.json`, `settings.json`."""
    config: AdoptPartsConfig = context.config
    if config.template not in TEMPLATES:
        raise InputError(f"unknown template {config.template!r}; use one of {sorted(TEMPLATES)}")
    llm, vision = find_model(config.llm, "llm"), find_model(config.vision, "vision")
    shape = inspect_thinker(llm)
    codec = TextCodec.load(llm / "tokenizer.json")
    tower = load_siglip(str(vision))
    notes = {"llm": str(llm), "vision": str(vision)}
    said = mismatch(llm, config.template)
    if said:
        context.progress.say(f"{context.name}: {said}")
        notes["chat template"] = said
    found = {"thinker": llm, "vision": vision}
    with context.progress.task("hashing", total=len(found), unit="model") as bar:
        for name, folder in found.items():
            atomic_write_json(context.out / f"{name}.json", adopted(folder, config.dtype))
            bar.update(1)
    codec.save(context.out / "tokenizer.json")
    save_settings(
        context.out,
        ModelSettings(
            mel=config.mel, template=config.template, context_tokens=config.context_tokens
        ),
    )
    return Report(
        metrics={
            "adopted.layers": exact(shape.layers),
            "adopted.vocabulary": exact(shape.vocab_size),
            "adopted.tokenizer_over_vocabulary": exact(codec.vocab_size - shape.vocab_size),
            "adopted.patches": exact(tower.config.grid**2),
        },
        notes=notes,
    )


def find_model(source: str, role: str) -> Path:
    """A folder as it is, or a hub id's files, fetched if need be.

    Raises InputError when it is neither.
    """
    if not source:
        raise InputError(f"no {role} was named; add {role}=FOLDER or {role}=HUB_ID")
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists() or source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise InputError(f"{role}={source} is no folder, and no hub id like Qwen/Qwen3-0.6B-Base")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError("a hub id needs `pip install lumoomni[hf]`; or give a folder") from error
    try:
        return Path(snapshot_download(source, allow_patterns=[*WEIGHTS, *TALK]))
    except (OSError, ValueError) as error:
        raise InputError(f"{role}={source} cannot be fetched from the hub: {error}") from error


def adopted(folder: Path, dtype: str) -> dict[str, Any]:
    """Where a model lies, and size and hash of each of its files."""
    return {
        ADOPTED: str(folder),
        "dtype": dtype,
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": hash_file(path)}
            for path in _files(folder)
        },
    }


def _files(folder: Path) -> Iterable[Path]:
    return sorted({path for pattern in WEIGHTS for path in folder.glob(pattern)})


def checks(config: AdoptPartsConfig) -> tuple[Check, ...]:
    """The gate."""
    return (
        Check(
            metric="adopted.tokenizer_over_vocabulary",
            op="<=",
            threshold=0.0,
            why="an id without a row of the token table cannot be read",
        ),
        Check(metric="adopted.layers", op=">=", threshold=1.0, why="a Thinker has layers"),
        Check(metric="adopted.patches", op=">=", threshold=1.0, why="a tower has patches"),
    )
