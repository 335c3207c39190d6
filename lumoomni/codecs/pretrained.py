"""Codecs of `transformers` from a folder or a hub id, by the model that config.json names.

Knows: which files make a codec and their hash, what may be asked of it, how its files are copied.
Does not know: what the adapters do. Costs: the weights, read once and hashed once. Needs the extra
`lumoomni[hf]`.
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumoomni.artifacts import hash_file
from lumoomni.codecs.facts import Kind
from lumoomni.codecs.pretrained_audio import DacSound, EncodecSound, MimiSound, PretrainedSound
from lumoomni.codecs.pretrained_image import (
    ChameleonPicture,
    Emu3Picture,
    Fit,
    JanusPicture,
    PretrainedPicture,
)
from lumoomni.config import canonical_json, nearest, read_object
from lumoomni.errors import InputError

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
PATTERNS = (CONFIG, PROCESSOR, "*.safetensors", "*.safetensors.index.json")
# What changes between versions of the library while the codec stays the same.
NOT_MEANT = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")


@dataclass(frozen=True, kw_only=True)
class Family:
    """The class of `transformers` that is loaded, and ours around it."""

    model: str
    config: str
    adapter: type[PretrainedSound] | type[PretrainedPicture]

    @property
    def kind(self) -> Kind:
        """`audio` or `image`."""
        return "audio" if issubclass(self.adapter, PretrainedSound) else "image"


FAMILIES: dict[str, Family] = {
    "encodec": Family(model="EncodecModel", config="EncodecConfig", adapter=EncodecSound),
    "mimi": Family(model="MimiModel", config="MimiConfig", adapter=MimiSound),
    "dac": Family(model="DacModel", config="DacConfig", adapter=DacSound),
    "chameleon_vqgan": Family(
        model="ChameleonVQVAE", config="ChameleonVQVAEConfig", adapter=ChameleonPicture
    ),
    "emu3_vqgan": Family(model="Emu3VQVAE", config="Emu3VQVAEConfig", adapter=Emu3Picture),
    "janus_vqgan": Family(model="JanusVQVAE", config="JanusVQVAEConfig", adapter=JanusPicture),
}
"""By `model_type` in config.json."""
WHOLE = ("chameleon", "emu3", "janus")


@dataclass(frozen=True, kw_only=True)
class CodecOptions:
    """What may be asked of a codec; 0 takes its usual one.

    `books` of sound; `image_size` and `fit` of pictures (`crop` the middle, `pad` with grey,
    `stretch`).
    """

    books: int = 0
    image_size: int = 0
    fit: Fit = "crop"


def load_pretrained(
    source: str | Path, options: CodecOptions | None = None
) -> PretrainedSound | PretrainedPicture:
    """The codec in a folder or of a hub id, in fp32 and evaluation mode.

    Raises InputError for another kind of model, missing or unexpected tensors, or options that it
    cannot meet.
    """
    folder, options = folder_of(source), options or CodecOptions()
    family = family_of(folder)
    processor = read_object(folder / PROCESSOR) if (folder / PROCESSOR).is_file() else None
    model, weights = _model(folder, family), weights_hash(folder)
    if issubclass(family.adapter, PretrainedSound):
        if options.image_size or options.fit != "crop":
            raise InputError(f"{source} is a sound codec: it has no picture size and no fit")
        _check_rate(folder, processor, model)
        return family.adapter(model, weights, books=options.books)
    if options.books:
        raise InputError(f"{source} is a picture codec: it has one codebook, not {options.books}")
    if processor is None:
        raise InputError(
            f"{folder} has no {PROCESSOR}, which says how colours are scaled; save the model's own "
            "image processor beside it"
        )
    size, fit = options.image_size, options.fit
    return family.adapter(model, weights, processor, image_size=size, fit=fit)


def folder_of(source: str | Path) -> Path:
    """A folder as it is, or where the files of a hub id lie once they are downloaded."""
    if Path(source).is_dir():
        return Path(source)
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise InputError(f"there is no folder {source}; give one, or a hub id such as kyutai/mimi")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise InputError("a codec of the hub needs `pip install lumoomni[hf]`") from error
    try:
        return Path(snapshot_download(str(source), allow_patterns=list(PATTERNS)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise InputError(
            f"{source} is no folder and cannot be had from the hub: {str(error).splitlines()[0]}"
        ) from error


def family_of(folder: Path) -> Family:
    """Raises InputError when config.json names no codec that is known here."""
    kind = str(read_object(folder / CONFIG).get("model_type"))
    if kind in WHOLE:
        raise InputError(
            f"{folder} holds a whole {kind} model; save its picture codec alone, with "
            "`model.model.vqmodel.save_pretrained(...)`, and its image processor beside it"
        )
    if kind not in FAMILIES:
        raise InputError(f"{folder} is a {kind!r}, no codec known here; {nearest(kind, FAMILIES)}")
    return FAMILIES[kind]


def weights_hash(folder: Path) -> str:
    """SHA-256 over the tensors' files, the processor's settings, and what config.json means."""
    config = {k: v for k, v in read_object(folder / CONFIG).items() if k not in NOT_MEANT}
    processor = read_object(folder / PROCESSOR) if (folder / PROCESSOR).is_file() else {}
    tensors = {path.name: hash_file(path) for path in sorted(folder.glob("*.safetensors"))}
    what = {"config": config, "processor": processor, "tensors": tensors}
    return hashlib.sha256(canonical_json(what).encode()).hexdigest()


def copy_files(source: str | Path, target: Path) -> None:
    """The files that make a codec, copied byte for byte into a new folder `target`."""
    folder = folder_of(source)
    target.mkdir(parents=True)
    for path in sorted(one for pattern in PATTERNS for one in folder.glob(pattern)):
        shutil.copyfile(path, target / path.name)


def _model(folder: Path, family: Family) -> Any:
    try:
        import torch
        import transformers
        from safetensors import SafetensorError
    except ImportError as error:
        raise InputError("a pretrained codec needs `pip install lumoomni[hf]`") from error
    transformers.utils.logging.disable_progress_bar()  # `--json` prints nothing but JSON
    kind = getattr(transformers, family.model, None)
    if kind is None:
        raise InputError(f"transformers {transformers.__version__} has no {family.model}")
    config = getattr(transformers, family.config).from_pretrained(folder)
    try:
        made = kind.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    model, info = made
    wrong = {name: sorted(info[name]) for name in ("missing_keys", "unexpected_keys") if info[name]}
    if wrong or info.get("mismatched_keys"):
        raise InputError(
            f"{folder} does not match its config.json: {wrong or info['mismatched_keys']}; the "
            "files do not belong together"
        )
    return model


def _check_rate(folder: Path, processor: dict[str, Any] | None, model: Any) -> None:
    rate = (processor or {}).get("sampling_rate", model.config.sampling_rate)
    if rate != model.config.sampling_rate:
        raise InputError(
            f"{folder / PROCESSOR} says {rate} samples a second, but {CONFIG} says "
            f"{model.config.sampling_rate}; the files do not belong together"
        )
