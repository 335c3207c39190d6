"""Conversations with media, as sequences and as padded batches.

Knows: turns of text, pictures and sound; how many positions each takes; right padding.
Does not know: where samples come from or what model reads them.
Costs: one tokenizer call a turn; log-mel of each sound (under a millisecond a second of sound).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lumoomni.codecs.text import TextCodec
from lumoomni.data.sample import PictureItem, Sensed, TextItem
from lumoomni.ids import IGNORE, NO_NUMBER
from lumoomni.media.image import normalise
from lumoomni.media.mel import MelConfig, log_mel
from lumoomni.shapes import MEL_FRAMES, POSITIONS, fill_up, round_up
from lumoomni.uti.sequence import Role, Sequence, SequenceBuilder


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn: pictures uint8 [H, W, 3], then sounds float32 [T], then text; any may be absent.

    `places` are offsets into the text at which the pictures stand instead, one for each.
    `sensed` are words in the place of pictures and sounds. Raises ValueError for places that do not
    match the pictures.
    """

    role: Role
    text: str = ""
    images: tuple[np.ndarray, ...] = ()
    places: tuple[int, ...] = ()
    sounds: tuple[np.ndarray, ...] = ()
    sensed: tuple[Sensed, ...] = ()

    def __post_init__(self) -> None:
        if not self.places:
            return
        inside = all(0 <= place <= len(self.text) for place in self.places)
        if len(self.places) != len(self.images) or list(self.places) != sorted(self.places):
            raise ValueError(f"{len(self.images)} pictures cannot stand at {self.places}")
        if not inside:
            raise ValueError(f"pictures at {self.places} of a text of {len(self.text)} letters")


def text_turns(item: TextItem) -> tuple[Turn, ...]:
    """The turns of a text item, each with what is sensed in it."""
    sensed = [
        tuple(one for one in item.sensed if one.turn == place) for place in range(len(item.turns))
    ]
    return tuple(
        Turn(role=role, text=text, sensed=met)  # type: ignore[arg-type]
        for (role, text), met in zip(item.turns, sensed, strict=True)
    )


def picture_turns(item: PictureItem, request: str) -> tuple[Turn, ...]:
    """The conversation about pictures, or `request` and the caption where there is none.

    Raises ValueError for places that do not match the pictures.
    """
    said = item.turns or (("user", request), ("assistant", item.caption))
    turns = [Turn(role=role, text=text) for role, text in said]  # type: ignore[arg-type]
    pictures = item.pictures
    if not item.places:
        first = next(place for place, turn in enumerate(turns) if turn.role == "user")
        turns[first] = replace(turns[first], images=pictures)
        return tuple(turns)
    shown = list(zip(item.places, pictures, strict=True))
    for number in {place[0] for place in item.places}:
        turns[number] = replace(
            turns[number],
            images=tuple(picture for (turn, _), picture in shown if turn == number),
            places=tuple(offset for turn, offset in item.places if turn == number),
        )
    return tuple(turns)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A conversation whose assistant turns are learned; `accepted` are right last answers."""

    turns: tuple[Turn, ...]
    accepted: tuple[str, ...] = ()
    kind: str = ""

    def prompt(self) -> tuple[Turn, ...]:
        """All turns but the last answer."""
        return self.turns[:-1]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A sequence with its media: pixels [3, S, S] and log-mels [M, n_mels]."""

    sequence: Sequence
    pixels: tuple[Tensor, ...]
    mels: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.sequence)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How conversations become sequences for one model.

    `prepare` makes a tower's pixels [B, 3, S, S] of pictures; by default these have its size.
    """

    text_codec: TextCodec
    template: str
    mel: MelConfig
    image_positions: int = 1
    prepare: Callable[[list[np.ndarray]], Tensor] = normalise

    def encode(
        self, turns: tuple[Turn, ...], *, open_answer: bool = False, pixels: bool = True
    ) -> Encoded:
        """Assistant turns are supervised; `open_answer` ends with an opened assistant turn.

        Without `pixels` pictures keep their positions but are not looked at.
        """
        builder = SequenceBuilder(self.text_codec, self.template)
        mels: list[Tensor] = []
        answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
        final = -1 if open_answer or not answers else answers[-1]
        for number, turn in enumerate(turns):
            learned = turn.role == "assistant"
            builder.open(turn.role, last=number == final)
            start = 0
            for place in turn.places or (0,) * len(turn.images):
                if place > start:
                    builder.text(turn.text[start:place], supervised=learned)
                    start = place
                builder.media("image", self.image_positions)
            for sound in turn.sounds:
                mel = log_mel(torch.from_numpy(sound)[None], self.mel)[0]
                builder.media("audio", audio_positions(len(mel)))
                mels.append(mel)
            for one in turn.sensed:
                builder.said(one.kind, one.words, self._positions(one))
            if turn.text[start:]:
                builder.text(turn.text[start:], supervised=learned)
            builder.close(supervised=learned)
        if open_answer:
            builder.open("assistant", last=True)
        images = [image for turn in turns for image in turn.images] if pixels else []
        return Encoded(
            sequence=builder.build(),
            pixels=tuple(self.prepare([image])[0] for image in images),
            mels=tuple(mels),
        )

    def _positions(self, sensed: Sensed) -> int:
        if sensed.kind == "image":
            return self.image_positions
        return round(sensed.spread * len(self.text_codec.encode(f" {sensed.words}")))


def audio_positions(mel_frames: int) -> int:
    """Positions that a clip takes in a sequence: three halvings of its mel frames, rounded up."""
    for _ in range(3):
        mel_frames = (mel_frames + 1) // 2
    return mel_frames


@dataclass(frozen=True, kw_only=True)
class Batch:
    """ids and labels [B, T] right-padded, lengths [B]; media stacked in reading order, or None.

    `documents` [B, T] where rows are packed (`data/packing.py`); `features` [I, N, V] where a
    tower's patches come in the place of the pixels (`data/feature_cache.py`); `numbers` [B, T]
    where some row has more pictures than one (`uti/sequence.py`).
    """

    ids: Tensor
    labels: Tensor
    lengths: Tensor
    pixels: Tensor | None
    mels: Tensor | None
    mel_lengths: Tensor | None
    documents: Tensor | None = None
    features: Tensor | None = None
    numbers: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch with every tensor on `device`."""
        if self.ids.device == device:
            return self
        fields: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Batch(**{k: None if v is None else v.to(device) for k, v in fields.items()})  # type: ignore[arg-type]

    def weight(self) -> float:
        """Supervised positions that have a predecessor to predict them."""
        return float((self.labels[:, 1:] != IGNORE).sum())


def collate(items: list[Encoded], pad: int = 0) -> Batch:
    """Right-pad encoded conversations to a common multiple of `POSITIONS`.

    Raises ValueError for an empty list.
    """
    if not items:
        raise ValueError("cannot make a batch of no conversations")
    longest = round_up(max(len(item) for item in items), POSITIONS)
    ids = torch.full((len(items), longest), pad, dtype=torch.long)
    labels = torch.full((len(items), longest), IGNORE, dtype=torch.long)
    for row, item in enumerate(items):
        ids[row, : len(item)] = torch.from_numpy(item.sequence.ids)
        labels[row, : len(item)] = torch.from_numpy(item.sequence.labels)
    pixels, mels, mel_lengths = stack_media(items)
    return Batch(
        ids=ids,
        labels=labels,
        lengths=torch.tensor([len(item) for item in items]),
        pixels=pixels,
        mels=mels,
        mel_lengths=mel_lengths,
        numbers=stack_numbers([[item] for item in items], longest),
    )


def stack_numbers(rows: list[list[Encoded]], width: int) -> Tensor | None:
    """Numbers [B, T] of rows of conversations that follow each other; None where none has any."""
    if all(item.sequence.numbers is None for row in rows for item in row):
        return None
    out = torch.full((len(rows), width), NO_NUMBER, dtype=torch.long)
    for place, row in zip(out, rows, strict=True):
        end = 0
        for item in row:
            start, end = end, end + len(item)
            if item.sequence.numbers is not None:
                place[start:end] = torch.from_numpy(item.sequence.numbers)
    return out


def stack_media(items: list[Encoded]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Pixels [I, 3, S, S], mels [A, M, n_mels] and mel lengths [A] in reading order, or None."""
    pixels = [picture for item in items for picture in item.pixels]
    mels = [mel for item in items for mel in item.mels]
    padded, lengths = pad_mels(mels) if mels else (None, None)
    return torch.stack(pixels) if pixels else None, padded, lengths


def pad_mels(mels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Log-mels [M_i, n_mels] -> ([A, M, n_mels] zero-padded, M a multiple; lengths [A])."""
    lengths = torch.tensor([len(mel) for mel in mels])
    padded = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True)
    return fill_up(padded, 1, MEL_FRAMES), lengths
