"""A whole answer, in parts: text, pictures and sound in the order in which they are to be shown.

Knows: what an answer consists of. Does not know: how any part was made. Costs: nothing.
"""

from dataclasses import dataclass

import numpy as np

from lumoomni.data.conversation import Turn
from lumoomni.media.audio import Audio


@dataclass(frozen=True, kw_only=True)
class TextPart:
    """Words; empty when the model said none."""

    text: str


@dataclass(frozen=True, kw_only=True)
class ImagePart:
    """A picture, uint8 [H, W, 3]."""

    pixels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class AudioPart:
    """Sound: the reply said aloud, or, `made`, a sound that was asked for."""

    audio: Audio
    made: bool = False


Part = TextPart | ImagePart | AudioPart


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The whole answer. `parts` are in order, and there is always one of text; `text`, `audio`,
    `speech`, `sounds` and `images` are views of them. `history` continues the conversation; `notes`
    say what was left out.

    Raises ValueError without a part of text.
    """

    parts: tuple[Part, ...]
    transcript: str = ""
    notes: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        if not any(isinstance(part, TextPart) for part in self.parts):
            kinds = ", ".join(type(part).__name__ for part in self.parts) or "nothing"
            raise ValueError(f"a reply has a part of text, perhaps an empty one, but got {kinds}")

    @property
    def text(self) -> str:
        """All words, a line for each part."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def audio(self) -> Audio | None:
        """The first sound, speech or made, or None."""
        sounds = [part.audio for part in self.parts if isinstance(part, AudioPart)]
        return sounds[0] if sounds else None

    @property
    def speech(self) -> Audio | None:
        """The reply said aloud, or None."""
        said = [p.audio for p in self.parts if isinstance(p, AudioPart) and not p.made]
        return said[0] if said else None

    @property
    def sounds(self) -> tuple[Audio, ...]:
        """The sounds that were asked for."""
        return tuple(p.audio for p in self.parts if isinstance(p, AudioPart) and p.made)

    @property
    def images(self) -> tuple[np.ndarray, ...]:
        """The pictures, each uint8 [H, W, 3]."""
        return tuple(part.pixels for part in self.parts if isinstance(part, ImagePart))
