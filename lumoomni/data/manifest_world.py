"""The micro-world as files: its pictures as PNG, its speech and sounds as WAV, with their texts.

Knows: which generator makes which item; training items and the world's own held-out splits.
Does not know: splits by asset. The same configuration writes the same files.
Costs: 0.4 ms a picture of 64 pixels, 1 ms a sound, 8 ms a sentence, and a safe write of each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lumoomni.data.headers import Kind
from lumoomni.data.manifest_drafts import Draft
from lumoomni.data.watched import watched
from lumoomni.data.world.language import caption
from lumoomni.data.world.scene import draw, make_scene
from lumoomni.data.world.sentences import sentence
from lumoomni.data.world.sketch import sketch
from lumoomni.data.world.sounds import make_sound
from lumoomni.data.world.speech import NARRATOR, RATE, synthesize, voice
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio, save_wav
from lumoomni.media.image import save_png


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How much of the world to write: `count` training pairs of each task and `held` of each split
    that it holds out; pictures of `pixels` along each side; the narrator, or many `voices`.

    Raises InputError for sizes that nothing can be made of.
    """

    seed: int = 0
    count: int = 1000
    held: int = 100
    pixels: int = 64
    voices: bool = False
    sketches: bool = False
    """Pictures to be drawn are others than those to be read: sketches (`world/sketch.py`)."""
    cues: bool = False
    """Sounds to be made are others than those to be heard: cues (`world/sounds.py`)."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.held < 0:
            raise InputError(
                f"count is {self.count} and held is {self.held}; the world needs at least 1 pair "
                "of each task to train on and 0 held out"
            )
        if not 8 <= self.pixels <= 4096:
            raise InputError(f"pixels is {self.pixels}; use 8 to 4096 along each side")


def world(folder: Path, config: WorldConfig) -> list[Draft]:
    """Write the files under `folder` and tell what they are: scenes with their one caption, sounds
    with captions, and spoken sentences. The official split is the world's own.

    The narrator says an unseen sentence as he says a seen one, so only many voices have "unseen".
    """
    left_out = {name for name in ("sketches", "cues") if not getattr(config, name)}
    ways = {
        **({"scenes": "i2t", "sketches": "t2i"} if config.sketches else {}),
        **({"sounds": "a2t", "cues": "t2a"} if config.cues else {}),
    }
    jobs = [
        (name, split, index)
        for name in _MAKERS
        if name not in left_out
        for split, count in (
            ("train", config.count),
            ("seen", config.held),
            ("unseen", config.held),
        )
        for index in range(count)
        if name != "speech" or split != "unseen" or config.voices
    ]
    drafts = []
    for name, split, index in watched(jobs, "making the world", "file"):
        kind, ending, make = _MAKERS[name]
        path = folder / name / f"{split}-{index:07}{ending}"
        drafts.append(
            Draft(
                id=f"world:{name}:{split}:{index:07}",
                where=f"{name} {split} {index}",
                kind=kind,
                text=make(path, split, index, config),
                media=path,
                official=split,
                way=ways.get(name, ""),
            )
        )
    return drafts


def _scene(path: Path, split: str, index: int, config: WorldConfig) -> str:
    scene = make_scene(config.seed, split, index)
    save_png(path, draw(scene, config.pixels))
    return caption(scene)


def _sketch(path: Path, split: str, index: int, config: WorldConfig) -> str:
    scene = make_scene(config.seed, split, index)
    save_png(path, sketch(scene, config.pixels))
    return caption(scene)


def _sound(path: Path, split: str, index: int, config: WorldConfig) -> str:
    sound = make_sound(config.seed, split, index)
    save_wav(path, Audio(sound.samples, RATE))
    return sound.caption


def _cue(path: Path, split: str, index: int, config: WorldConfig) -> str:
    cue = make_sound(config.seed, split, index, cue=True)
    save_wav(path, Audio(cue.samples, RATE))
    return cue.caption


def _speech(path: Path, split: str, index: int, config: WorldConfig) -> str:
    text = sentence(config.seed, "train" if split == "train" else "seen", index)
    who = voice(config.seed, split, index) if config.voices else NARRATOR
    save_wav(path, Audio(synthesize(text, who).samples, RATE))
    return text


_MAKERS: dict[str, tuple[Kind, str, Callable[[Path, str, int, WorldConfig], str]]] = {
    "scenes": ("picture", ".png", _scene),
    "sketches": ("picture", ".png", _sketch),
    "sounds": ("sound", ".wav", _sound),
    "cues": ("sound", ".wav", _cue),
    "speech": ("sound", ".wav", _speech),
}
