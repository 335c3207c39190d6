"""What ids of a codec mean: its kind, sizes, rates, and the hash of its weights.

Does not know: the codec itself, or which ids it is given. Costs: nothing.
"""

from dataclasses import dataclass
from typing import Literal

from lumoomni.errors import InputError

Kind = Literal["image", "audio"]
SERIAL = {"image": "row_by_row", "audio": "frame_by_frame"}


@dataclass(frozen=True, kw_only=True)
class CodecFacts:
    """What ids of one codec mean. `weights` is the SHA-256 of its weights.

    Pictures take `tokens` ids each, in one codebook; sound takes `codebooks` ids a frame, frame by
    frame. `side` names what decoding needs besides ids (scales of EnCodec at 48 kHz).
    """

    kind: Kind
    name: str
    weights: str
    codebooks: int
    codebook_size: int
    tokens: int = 0
    frame_rate: float = 0.0
    sample_rate: int = 0
    channels: int = 1
    side: tuple[str, ...] = ()
    serialization: str = ""

    def __post_init__(self) -> None:
        serial = self.serialization or SERIAL.get(self.kind, "")
        object.__setattr__(self, "serialization", serial)
        if self.kind not in SERIAL:
            raise InputError(f"codec {self.name} is of kind {self.kind!r}; use image or audio")
        if min(self.codebooks, self.codebook_size) < 1:
            raise InputError(
                f"codec {self.name} has {self.codebooks} codebooks of {self.codebook_size}; both "
                "must be at least 1"
            )
        if self.kind == "image" and (self.codebooks != 1 or self.tokens < 1):
            raise InputError(
                f"picture codec {self.name} has {self.codebooks} codebooks and {self.tokens} tokens"
                " a picture; it needs one codebook and at least one token"
            )
        if self.kind == "audio" and (self.frame_rate <= 0 or self.sample_rate <= 0):
            raise InputError(
                f"sound codec {self.name} has {self.frame_rate} frames and {self.sample_rate} "
                "samples a second; both must be positive"
            )

    def ranges(self) -> tuple[tuple[str, int], ...]:
        """(name, size) of each range that it takes."""
        if self.kind == "image":
            return (("IMAGE", self.codebook_size),)
        return tuple((f"AUDIO_CB{q}", self.codebook_size) for q in range(self.codebooks))
