"""What ids of a codec mean: its kind, sizes, rates, and the hash of its weights.

Also what every codec of media takes and gives: `MediaCodec` and `Coded`.
Does not know: the codec itself, or which ids it is given. Costs: nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from lumoomni.errors import InputError

Kind = Literal["image", "audio"]
SERIAL = {"image": "row_by_row", "audio": "frame_by_frame"}


@dataclass(frozen=True, kw_only=True)
class CodecFacts:
    """What ids of one codec mean. `weights` is the SHA-256 of its weights.

    Pictures take `tokens` ids each, in one codebook, and are `image_size` pixels high and wide once
    made ready; sound takes `codebooks` ids a frame, frame by frame. `side` names what decoding
    needs besides ids (scales of EnCodec at 48 kHz). `preprocessing` says how media are made ready
    (in words, or their SHA-256). `decodes` is False for a codec that only encodes: what ids mean
    does not change when one learns to decode, so that it is no part of equality or of the ABI.
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
    image_size: int = 0
    preprocessing: str = ""
    decodes: bool = field(default=True, compare=False)

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

    def meaning(self) -> dict[str, Any]:
        """What the ABI hash of a token space covers, JSON-safe."""
        kept = {name: value for name, value in vars(self).items() if name != "decodes"}
        return {**kept, "side": list(self.side)}

    def check(self, coded: "Coded") -> None:
        """What every `decode` asks first. Raises InputError for codes of another shape or out of
        range (which would end a process on a GPU), for missing side data, and for a codec that
        only encodes."""
        codes = np.asarray(coded.codes)
        if not self.decodes:
            raise InputError(
                f"{self.name} only encodes; use another codec where {self.kind}s are made"
            )
        if codes.ndim != 2 or codes.shape[1] != self.codebooks or not len(codes):
            raise InputError(
                f"codes of {self.name} are [F, {self.codebooks}] with F at least 1, got "
                f"{list(codes.shape)}"
            )
        if self.kind == "image" and len(codes) != self.tokens:
            raise InputError(f"a picture of {self.name} has {self.tokens} codes, got {len(codes)}")
        if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= self.codebook_size:
            raise InputError(
                f"codes of {self.name} are whole numbers from 0 to {self.codebook_size - 1}, got "
                f"{codes.dtype} from {codes.min()} to {codes.max()}"
            )
        missing = [name for name in self.side if name not in coded.side]
        if missing:
            raise InputError(
                f"{self.name} cannot decode ids alone: it needs {', '.join(missing)} too, which "
                "encoding gave as side data; keep it with the ids, or use a codec without"
            )


@dataclass(frozen=True)
class Coded:
    """codes int64 [F, Q] of sound, [N, 1] of a picture.

    `side` is JSON-safe: exactly what `CodecFacts.side` names, without which there is no decoding.
    """

    codes: np.ndarray
    side: dict[str, Any] = field(default_factory=dict)


class MediaCodec(Protocol):
    """Media to codes and back; the same codes every time, in any company.

    Media are pictures uint8 [H, W, 3], or samples float32 [S] at `facts.sample_rate` ([2, S] where
    `facts.channels` is 2).
    """

    facts: CodecFacts

    def encode(self, media: Any, /) -> Coded:
        """Raises InputError for media that hold not one frame, or are of another shape."""
        ...

    def encode_batch(self, media: Sequence[Any], /) -> list[Coded]:
        """Equal to `encode` of each, bit for bit."""
        ...

    def decode(self, coded: Coded, /) -> Any:
        """A picture uint8 [H, W, 3], or Audio. Raises InputError for codes out of range and for
        missing side data."""
        ...
