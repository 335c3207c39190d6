"""Codecs in a folder: what each one is, written to `codecs.json`, and how it is opened again.

Knows: which file each kind of codec keeps beside it. Does not know: ids, manifests or hubs.
Costs: the codecs' weights, read once.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from lumoomni.artifacts import hash_file
from lumoomni.codecs.facts import Kind, MediaCodec
from lumoomni.codecs.pretrained import CodecOptions, copy_files, load_pretrained
from lumoomni.codecs.speech_rvq import SpeechCodec, SpeechCodecConfig
from lumoomni.codecs.speech_tokens import SpeechTokens
from lumoomni.config import from_dict, read_object, to_dict
from lumoomni.errors import InputError
from lumoomni.media.mel import MelConfig
from lumoomni.runtime import atomic_write_json, resolve_device

FILE = "codecs.json"
SPEECH, IMAGE = "speech_codec", "image_codec"
SOUND = "sound_codec"
"""One that keeps sound events as well as speech, where a recipe trains it."""


def speech_entry(mel: MelConfig) -> dict[str, Any]:
    """The entry of our speech codec, whose part `speech_codec` lies beside `codecs.json`."""
    return {"type": "lumo-speech-rvq", "mel": to_dict(mel)}


def image_entry() -> dict[str, Any]:
    """The entry of our picture codec, whose part `image_codec` lies beside `codecs.json`."""
    return {"type": "lumo-image-vq"}


def pretrained_entry(
    folder: Path, kind: Kind, source: str | Path, options: CodecOptions
) -> dict[str, Any]:
    """The entry of a codec of `transformers`, whose files are copied into `folder`.

    Copies: a space must not change, or get lost, with somebody's cache.
    Raises InputError for a codec of another kind.
    """
    place = folder / f"{kind}_codec"
    copy_files(source, place)
    found = load_pretrained(place, options).facts
    if found.kind != kind:
        raise InputError(f"{source} is {found.name}, of kind {found.kind}; give one of kind {kind}")
    return {"type": "pretrained", "folder": place.name, "options": to_dict(options)}


def save_entries(folder: Path, entries: Mapping[Kind, dict[str, Any]]) -> None:
    """Write `codecs.json`."""
    atomic_write_json(folder / FILE, dict(entries))


def load_codecs(folder: Path, device: str = "cpu") -> dict[Kind, MediaCodec]:
    """All codecs of a folder, in evaluation mode, at work on `device`: cpu, cuda, mps or auto.

    Raises InputError for damage, and for a device that is not here.
    """
    entries, place = read_object(folder / FILE), resolve_device(device)
    found: dict[Kind, MediaCodec] = {}
    for entry in entries.values():
        wanted = entry.get("type") if isinstance(entry, dict) else None
        if wanted not in OPENERS:
            raise InputError(
                f"{folder / FILE} names the codec {wanted!r}; this version knows "
                f"{', '.join(OPENERS)}"
            )
        codec = OPENERS[wanted](folder, entry, place)
        found[codec.facts.kind] = codec
    return found


def fill(module: nn.Module, path: Path) -> nn.Module:
    """All tensors of a safetensors file into a module that has the same ones, in evaluation mode.

    Raises InputError for a damaged file or other tensors.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error
    own = module.state_dict()
    odd = sorted(own.keys() ^ tensors.keys())
    odd += sorted(k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape)
    if odd:
        raise InputError(
            f"{path} does not fit its own config: {len(odd)} tensors differ, first {odd[0]!r}"
        )
    module.load_state_dict(tensors)
    return module.requires_grad_(False).eval()


def _speech(folder: Path, entry: dict[str, Any], device: torch.device) -> MediaCodec:
    config = from_dict(SpeechCodecConfig, read_object(folder / f"{SPEECH}.json"), where=SPEECH)
    weights = folder / f"{SPEECH}.safetensors"
    codec = SpeechCodec(config)
    fill(codec, weights)
    mel = from_dict(MelConfig, entry.get("mel"), where=f"{FILE}: mel")
    return SpeechTokens(codec.to(device), mel, hash_file(weights))


def _image(folder: Path, entry: dict[str, Any], device: torch.device) -> MediaCodec:
    from lumoomni.codecs.image_tokens import ImageTokens
    from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig

    config = from_dict(ImageCodecConfig, read_object(folder / f"{IMAGE}.json"), where=IMAGE)
    weights = folder / f"{IMAGE}.safetensors"
    codec = ImageCodec(config)
    fill(codec, weights)
    return ImageTokens(codec.to(device), hash_file(weights))


def _pretrained(folder: Path, entry: dict[str, Any], device: torch.device) -> MediaCodec:
    options = from_dict(CodecOptions, entry.get("options"), where=f"{FILE}: options")
    codec = load_pretrained(folder / str(entry.get("folder")), options)
    codec.model.to(device)
    return codec


OPENERS: dict[str, Callable[[Path, dict[str, Any], torch.device], MediaCodec]] = {
    "lumo-speech-rvq": _speech,
    "lumo-image-vq": _image,
    "pretrained": _pretrained,
}
