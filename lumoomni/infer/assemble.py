"""Putting a model together from the parts that stages saved.

Each stage's artifact holds only what it trained: `<part>.safetensors` and `<part>.json`. A model
is an artifact and its ancestors; of each part the latest one counts. Adapters (`thinker_adapter`)
are put on the Thinker that they were made for.
Does not know: conversations or sound. Costs: every file that is loaded is hashed once.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from lumoomni.artifacts import Artifact, hash_file, open_artifact
from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.codecs.speech_rvq import SpeechCodec, SpeechCodecConfig
from lumoomni.codecs.stored import FILE as CODECS
from lumoomni.codecs.text import TextCodec
from lumoomni.config import canonical_json, from_dict, to_dict
from lumoomni.errors import InputError
from lumoomni.gates import checks_from_dict, judge
from lumoomni.media.image import normalise
from lumoomni.media.mel import MelConfig
from lumoomni.model.audio import AudioTower, AudioTowerConfig
from lumoomni.model.connector import LinearConnector, LinearConnectorConfig
from lumoomni.model.hf_weights import load_thinker
from lumoomni.model.lora import ADAPTER, load_adapter
from lumoomni.model.perceiver import PerceiverConnector, PerceiverConnectorConfig
from lumoomni.model.rows import Rows, RowsConfig
from lumoomni.model.siglip import SiglipTower, load_siglip
from lumoomni.model.talker import Talker, TalkerConfig
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.model.vision import VisionTower, VisionTowerConfig
from lumoomni.runtime import atomic_write_bytes, atomic_write_json

PARTS: dict[str, dict[type, type[nn.Module]]] = {
    "thinker": {ThinkerConfig: Thinker},
    "vision": {VisionTowerConfig: VisionTower},
    "audio": {AudioTowerConfig: AudioTower},
    "image_connector": {
        LinearConnectorConfig: LinearConnector,
        PerceiverConnectorConfig: PerceiverConnector,
    },
    "audio_connector": {LinearConnectorConfig: LinearConnector},
    "talker": {TalkerConfig: Talker},
    "speech_codec": {SpeechCodecConfig: SpeechCodec},
    "sound_codec": {SpeechCodecConfig: SpeechCodec},
    "image_codec": {ImageCodecConfig: ImageCodec},
    "rows": {RowsConfig: Rows},
    "maker": {ThinkerConfig: Thinker},
}
"""What each part may be. Where there is a choice, the config's file names the class."""
BUILT_BY = {
    "thinker": "pretrain_text",
    "vision": "train_vision_encoder",
    "audio": "train_audio_encoder",
    "image_connector": "instruct",
    "audio_connector": "instruct",
    "talker": "train_talker",
    "speech_codec": "train_codecs",
    "sound_codec": "train_sound_codec",
    "image_codec": "train_image_codec",
    "rows": "train_rows",
    "maker": "pretrain_tokens",
}
ALONE = ("image_codec", "sound_codec")
"""Parts that no other part is an ancestor of: they stand beside a model in its build."""
SPACE = "token_space.json"
"""An artifact with it holds copies of codecs, and made no part of a model."""
KIND = "class"
ADOPTED = "adopted"
SETTINGS = "settings.json"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What all parts agree on."""

    mel: MelConfig = field(default_factory=MelConfig)
    template: str = "compact"
    context_tokens: int = 512


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A model in parts. `modules` maps part names to modules in evaluation mode."""

    artifact: Artifact
    text_codec: TextCodec
    settings: ModelSettings
    modules: dict[str, nn.Module]
    sources: dict[str, str]
    """Which stage each part came from."""
    unproven: tuple[str, ...] = ()
    """One sentence for each stage that is used although it did not pass its gate."""

    def need(self, name: str) -> Any:
        """The part. Raises InputError naming the stage that builds it when it is missing."""
        if name not in self.modules:
            built = self.artifact.path.parent / BUILT_BY[name]
            if (built / "manifest.json").is_file() and not open_artifact(built).passed:
                raise InputError(
                    f"{built} holds the {name} but is not used, as it did not pass its gate; look "
                    "at `lumo status`, or use --unproven to try it all the same"
                )
            raise InputError(
                f"{self.artifact.path} has no {name} yet; build it with "
                f"`lumo build RECIPE --until {BUILT_BY[name]}`"
            )
        return self.modules[name]


def save_part(folder: Path, name: str, module: nn.Module) -> None:
    """Write one part: weights and the config that rebuilds it."""
    tensors, seen = {}, set()
    for key, value in module.state_dict().items():
        copy = value.detach().contiguous().cpu()
        # Tied tensors share memory; safetensors wants each to own its bytes.
        tensors[key] = copy.clone() if copy.data_ptr() in seen else copy
        seen.add(copy.data_ptr())
    atomic_write_bytes(folder / f"{name}.safetensors", save(tensors))
    settings = to_dict(module.config)
    if len(PARTS[name]) > 1:
        settings = {KIND: type(module).__name__, **settings}
    atomic_write_json(folder / f"{name}.json", settings)


def load_part(artifact: Artifact, name: str) -> nn.Module:
    """Read one part in evaluation mode. Raises InputError for damage or foreign weights."""
    settings = _read_json(artifact, f"{name}.json")
    if ADOPTED in settings:
        return _load_adopted(artifact, name, settings)
    config_type, module_type = _kind_of(name, settings, artifact)
    module = module_type(from_dict(config_type, settings, where=name))  # type: ignore[call-arg]
    path = checked(artifact, f"{name}.safetensors")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error
    own = module.state_dict()
    odd = sorted(own.keys() ^ tensors.keys())
    odd += sorted(k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape)
    if odd:
        raise InputError(
            f"{path} does not fit its own config: {len(odd)} tensors differ, first {odd[0]!r}"
        )
    module.load_state_dict(tensors)
    return module.eval()


def _load_adopted(artifact: Artifact, name: str, settings: dict[str, Any]) -> nn.Module:
    """A part that lies in somebody's folder. Raises InputError when a file of it is another one."""
    folder, dtype = Path(settings[ADOPTED]), getattr(torch, settings["dtype"])
    for file, facts in settings["files"].items():
        size = (folder / file).stat().st_size if (folder / file).is_file() else None
        if size != facts["bytes"]:
            raise InputError(
                f"{folder / file} has {'no' if size is None else f'{size:,}'} bytes, but "
                f"{artifact.path.name} adopted {facts['bytes']:,} (SHA-256 {facts['sha256'][:12]}"
                "...); put the same model back, or build anew with this one"
            )
        digest = hash_file(folder / file)
        if digest != facts["sha256"]:
            raise InputError(
                f"{folder / file} was changed: its SHA-256 is {digest[:12]}..., but "
                f"{artifact.path.name} adopted {facts['sha256'][:12]}...; put the same model back, "
                "or build anew with this one"
            )
    if name == "thinker":
        return load_thinker(folder, dtype).eval()
    return load_siglip(str(folder), dtype)


def base_hash(owner: Artifact) -> str:
    """SHA-256 that names a Thinker by the bytes of its weights, wherever they lie.

    `owner` is the artifact with its `thinker.json`. What adapters name as their base.
    """
    settings = _read_json(owner, "thinker.json")
    if ADOPTED not in settings:
        return owner.manifest["files"]["thinker.safetensors"]["sha256"]
    own = {n: f["sha256"] for n, f in settings["files"].items() if n != "preprocessor_config.json"}
    return hashlib.sha256(canonical_json(own).encode()).hexdigest()


def put_adapter(thinker: nn.Module, artifact: Artifact, owner: Artifact) -> None:
    """Put the adapters of `artifact` on the Thinker of `owner`, in place.

    Raises InputError when they were made for another one, or are damaged.
    """
    assert isinstance(thinker, Thinker)
    path = checked(artifact, f"{ADAPTER}.safetensors")
    load_adapter(thinker, _read_json(artifact, f"{ADAPTER}.json"), path, base_hash(owner))


def _adapted(later: list[Artifact]) -> Artifact | None:
    """The latest artifact with adapters, of those made after the Thinker."""
    return next((a for a in later if f"{ADAPTER}.json" in a.manifest["files"]), None)


def _kind_of(
    name: str, settings: dict[str, Any], artifact: Artifact
) -> tuple[type, type[nn.Module]]:
    """The config and module of a part; takes the class's name out of the settings."""
    kinds = {module.__name__: (config, module) for config, module in PARTS[name].items()}
    wanted = settings.pop(KIND, next(iter(kinds)))
    if wanted not in kinds:
        raise InputError(
            f"{artifact.path / name}.json names {wanted!r}, but a {name} is one of "
            f"{', '.join(kinds)}; it was written by another version"
        )
    return kinds[wanted]


def preparer(vision: nn.Module | None) -> Callable[[list[np.ndarray]], torch.Tensor]:
    """What makes a tower's pixels of pictures: its own processor, or plain scaling to [-1, 1]."""
    return vision.prepare if isinstance(vision, SiglipTower) else normalise


def holder(parents: dict[str, Artifact], file: str) -> Artifact:
    """The latest of a stage's parents that has a file. Raises InputError when none has."""
    for artifact in reversed(parents.values()):
        if file in artifact.manifest["files"]:
            return artifact
    raise InputError(f"none of the stages {', '.join(parents)} made a {file}; add one that does")


def save_settings(folder: Path, settings: ModelSettings) -> None:
    """Write `settings.json`."""
    atomic_write_json(folder / SETTINGS, to_dict(settings))


def load_settings(artifact: Artifact) -> ModelSettings:
    """Read `settings.json` of an artifact."""
    return from_dict(ModelSettings, _read_json(artifact, SETTINGS), where=SETTINGS)


def checked(artifact: Artifact, name: str) -> Path:
    """A file of an artifact whose bytes are still those of the manifest."""
    path = artifact.file(name)
    wanted, found = artifact.manifest["files"][name]["sha256"], hash_file(path)
    if wanted != found:
        raise InputError(
            f"{path} was changed: its SHA-256 is {found[:12]}..., the manifest says "
            f"{wanted[:12]}...; build stage {artifact.kind} again"
        )
    return path


def gather(path: Path, *, unproven: bool = False) -> Parts:
    """The model in a build directory, or in one artifact and its ancestors.

    With `unproven`, stages that failed their gate are used too, and `Parts.unproven` names them.
    Raises InputError when something is missing, changed, failed its gate, or does not belong.
    """
    artifact = find_artifact(Path(path), unproven=unproven)
    line = [*lineage(artifact, unproven=unproven), *_beside(artifact, unproven)]
    modules: dict[str, nn.Module] = {}
    sources: dict[str, str] = {}
    for name in PARTS:
        owner = next((a for a in line if _owns(a, f"{name}.json")), None)
        if owner is not None:
            modules[name] = load_part(owner, name).requires_grad_(False)
            sources[name] = owner.kind
            if name == "thinker":
                adapted = _adapted(line[: line.index(owner)])
                if adapted is not None:
                    put_adapter(modules[name], adapted, owner)
                    sources[ADAPTER] = adapted.kind
    owners = {
        f: next((a for a in line if f in a.manifest["files"]), None) for f in (TOKENIZER, SETTINGS)
    }
    if None in owners.values() or "thinker" not in modules:
        raise InputError(
            f"{artifact.path} ({artifact.kind}) is no model: it and its ancestors hold no Thinker "
            "with a tokenizer; give a build directory or an artifact made after pretrain_text"
        )
    tokenizer, settings = owners[TOKENIZER], owners[SETTINGS]
    assert tokenizer is not None and settings is not None
    return Parts(
        artifact=artifact,
        text_codec=TextCodec.load(checked(tokenizer, TOKENIZER)),
        settings=_as_trained(load_settings(settings), line),
        modules=modules,
        sources=sources,
        unproven=tuple(_shortfall(one) for one in line if not one.passed),
    )


def _owns(artifact: Artifact, file: str) -> bool:
    """Whether an artifact made a part: a token space holds copies of codecs, and perhaps of another
    one than the Talker speaks."""
    files = artifact.manifest["files"]
    return file in files and CODECS not in files


def _as_trained(settings: ModelSettings, line: list[Artifact]) -> ModelSettings:
    """The settings with the template that the latest stage to train a connector spoke.

    A stage may speak another one than the Thinker learned; serving that of `settings.json` would
    then ask in words that were never trained, and no number would say so.
    """
    owner = next((a for a in line if "image_connector.json" in a.manifest["files"]), None)
    own = None if owner is None else owner.config.get("template")
    return replace(settings, template=own) if own else settings


def find_artifact(path: Path, *, unproven: bool = False) -> Artifact:
    """The artifact at `path`, or the latest passed (or any, if `unproven`) one of a build that made
    a part of a model: a sweep makes none."""
    if not path.exists():
        raise InputError(f"there is no {path}; give a build directory or an artifact directory")
    recipe = path / "recipe.json"
    if not recipe.is_file():
        return _passed(open_artifact(path), unproven)
    try:
        stages = list(json.loads(recipe.read_text())["stages"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{recipe} is damaged: {error!r}") from error
    for name in reversed(stages):
        if (path / name / "manifest.json").is_file():
            artifact = open_artifact(path / name)
            files = artifact.manifest["files"]
            copies = SPACE in files
            made = any(f"{part}.json" in files for part in PARTS if part not in ALONE)
            if made and not copies and (artifact.passed or unproven):
                return artifact
    raise InputError(f"{path} holds no finished stage yet; run `lumo build` first")


def _beside(artifact: Artifact, unproven: bool) -> list[Artifact]:
    """The artifacts of the same build that made parts of ALONE, if they may be used."""
    found = []
    for folder in (artifact.path.parent / BUILT_BY[part] for part in ALONE):
        if folder != artifact.path and (folder / "manifest.json").is_file():
            made = open_artifact(folder)
            found += [made] if made.passed or unproven else []
    return found


def lineage(artifact: Artifact, *, unproven: bool = False) -> list[Artifact]:
    """The artifact and its ancestors, the latest first; each parent must be the very one named."""
    found: dict[str, Artifact] = {artifact.kind: artifact}
    queue = [artifact]
    while queue:
        child = queue.pop(0)
        for name, wanted in child.manifest["parents"].items():
            parent = found.get(name) or _passed(open_artifact(child.path.parent / name), unproven)
            if parent.hash != wanted:
                raise InputError(
                    f"{child.path} was made from {name} {wanted[:12]}..., but {parent.path} is "
                    f"{parent.hash[:12]}...; build {child.kind} again"
                )
            if name not in found:
                found[name] = parent
                queue.append(parent)
    return sorted(found.values(), key=lambda a: -_depth(a, found))


def _depth(artifact: Artifact, found: dict[str, Artifact]) -> int:
    parents = artifact.manifest["parents"]
    return 1 + max((_depth(found[name], found) for name in parents), default=0)


def _passed(artifact: Artifact, unproven: bool) -> Artifact:
    if not artifact.passed and not unproven:
        raise InputError(
            f"{artifact.path} ({artifact.kind}) did not pass its gate and is not used; see "
            "`lumo status`, or use --unproven to try it all the same"
        )
    return artifact


def _shortfall(artifact: Artifact) -> str:
    verdict = judge(artifact.report, checks_from_dict(artifact.manifest["checks"]))
    return f"{artifact.kind} did not pass its gate: {'; '.join(verdict.failures())}"


def _read_json(artifact: Artifact, name: str) -> Any:
    path = checked(artifact, name)
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
