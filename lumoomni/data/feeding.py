"""Batches of conversations about pictures, by number: padded, or packed without padding.

Knows: a source of pictures, a layout, the longest sequence, features kept from an earlier look.
Does not know: models. Batch i is a pure function of i, so that a run can go on where it stopped.
Costs: padded, one sample at a time. Packed, the lengths of an epoch are needed first: a tokenizer
call for each sample (about two minutes for 558,000), no picture is opened for it.
"""

import itertools
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lumoomni.data.conversation import Batch, Encoded, Layout, Turn, collate, picture_turns
from lumoomni.data.feature_cache import FeatureCache
from lumoomni.data.packing import PackConfig, collate_packed, plan_packs
from lumoomni.data.sample import PictureItem, PictureSource
from lumoomni.errors import InputError
from lumoomni.ids import IGNORE
from lumoomni.uti.sequence import Sequence as Ids


@dataclass(frozen=True)
class Fed:
    """A batch, and the items in it in reading order."""

    batch: Batch
    items: tuple[PictureItem, ...]


class Feed:
    """`batch(i)` gives `batch_size` samples, or with `pack` so many full rows.

    Finite data is packed epoch by epoch, endless data `pack.window` samples at a time.
    """

    def __init__(
        self,
        source: PictureSource,
        layout: Layout,
        request: str,
        *,
        batch_size: int,
        context: int,
        pack: PackConfig | None = None,
        seed: int = 0,
        cache: FeatureCache | None = None,
    ) -> None:
        if pack is not None and context > pack.capacity:
            raise InputError(
                f"sequences of {context} positions do not fit rows of {pack.capacity}; lower the "
                "context, or pack into longer rows"
            )
        self._source, self._layout, self._request = source, layout, request
        self._size, self._context, self._seed = batch_size, context, seed
        self._cache, self._pack = cache, pack
        self._epochs: list[_Epoch] = []
        self._lock = threading.Lock()

    def batch(self, index: int) -> Fed:
        """Batch number `index`."""
        if self._pack is None:
            first = index * self._size
            chosen = [(first + i,) for i in range(self._size)]
        else:
            chosen = self._rows(index)
        rows = [[self._sample(i) for i in row] for row in chosen]
        items = tuple(item for row in rows for item, _ in row)
        encoded = [[made for _, made in row] for row in rows]
        if self._pack is None:
            batch = collate([made for row in encoded for made in row])
        else:
            batch = collate_packed(encoded)
        if self._cache is not None:
            samples = zip(itertools.chain(*chosen), itertools.chain(*encoded), strict=True)
            keys = [key for i, made in samples for key in self._keys(i, made)]
            # Conversations without a picture have nothing to be read.
            batch = replace(batch, features=self._cache.read(keys) if keys else None)
        return Fed(batch, items)

    def indices(self, batches: int) -> range:
        """The samples that the first `batches` batches hold, or a few more."""
        if self._pack is None:
            return range(batches * self._size)
        with self._lock:
            epoch, _ = self._epoch_of(batches - 1)
        return range(epoch.first + epoch.count)

    def _sample(self, index: int) -> tuple[PictureItem, Encoded]:
        # With kept features no picture is opened.
        cached = self._cache is not None
        item = (self._source.outline if cached else self._source.item)("train", index)
        made = self._layout.encode(picture_turns(item, self._request), pixels=not cached)
        return item, shorten(made, self._context)

    def _keys(self, index: int, made: Encoded) -> tuple[str, ...]:
        """Of the pictures that are not cut off."""
        shown = sum(slot.kind == "image" for slot in made.sequence.slots)
        return self._source.fingerprints("train", index)[:shown]

    def _rows(self, index: int) -> list[tuple[int, ...]]:
        """The samples of a packed batch's rows."""
        with self._lock:
            epoch, place = self._epoch_of(index)
        rows = epoch.packs[place * self._size : (place + 1) * self._size]
        return [tuple(epoch.first + i for i in row) for row in rows]

    def _epoch_of(self, index: int) -> tuple["_Epoch", int]:
        while not self._epochs or self._epochs[-1].until <= index:
            self._epochs.append(self._plan())
        epoch = next(one for one in self._epochs if index < one.until)
        return epoch, index - epoch.start

    def _plan(self) -> "_Epoch":
        """The next epoch: which samples share which row."""
        assert self._pack is not None
        last = self._epochs[-1] if self._epochs else None
        number, start = len(self._epochs), last.until if last else 0
        first = last.first + last.count if last else 0
        count = self._source.size("train") or self._pack.window
        lengths = [self._length(first + i) for i in range(count)]
        packs = plan_packs(lengths, self._pack, self._seed + number)
        batches = -(-len(packs) // self._size)
        return _Epoch(first, count, start, start + batches, packs)

    def _length(self, index: int) -> int:
        item = self._source.outline("train", index)
        made = self._layout.encode(picture_turns(item, self._request), pixels=False)
        return len(shorten(made, self._context))


@dataclass(frozen=True)
class _Epoch:
    """Samples first .. first + count as rows, for the batches start .. until."""

    first: int
    count: int
    start: int
    until: int
    packs: list[tuple[int, ...]]


def shorten(item: Encoded, most: int) -> Encoded:
    """The first `most` positions, or fewer: never part of a picture or a sound.

    What is cut off is counted by the stage's truncation metric. Raises InputError when not even the
    first of them fits.
    """
    made = item.sequence
    if len(made) <= most:
        return item
    limit = most
    for slot in made.slots:
        if slot.stop >= limit:  # its end marker too
            limit = min(limit, slot.start - 1)
    slots = tuple(slot for slot in made.slots if slot.stop < limit)
    if made.slots and not slots:
        raise InputError(
            f"a sample of {len(made)} positions cannot be cut to {most}: its first picture or "
            f"sound ends at {made.slots[0].stop}; raise the context, or lower the latents"
        )
    spans = tuple(replace(s, stop=min(s.stop, limit)) for s in made.spans if s.start < limit)
    numbers = None if made.numbers is None else made.numbers[:limit]
    cut = Ids(made.ids[:limit], made.labels[:limit], slots, spans, numbers)
    pictures = sum(slot.kind == "image" for slot in slots)
    sounds = len(slots) - pictures
    return Encoded(sequence=cut, pixels=item.pixels[:pictures], mels=item.mels[:sounds])


MARKERS = 32
"""More positions than the markers of a turn or a picture take."""


def cut_note(
    name: str, talks: Iterable[tuple[Turn, ...]], layout: Layout, most: int, setting: str
) -> str:
    """A sentence about the conversations without sound that `shorten` cuts, or nothing.

    Raises InputError when no answer would be left in any. What is surely short enough is not
    encoded: an id stands for at least one byte.
    """
    total = cut = bare = 0
    for turns in talks:
        total += 1
        letters = sum(len(turn.text.encode()) + MARKERS for turn in turns)
        pictures = sum(len(turn.images) for turn in turns)
        if letters + pictures * (layout.image_positions + MARKERS) <= most:
            continue
        made = layout.encode(turns, pixels=False)
        if len(made) > most:
            cut += 1
            bare += bool((shorten(made, most).sequence.labels[1:] == IGNORE).all())
    if not cut:
        return ""
    said = (
        f"{name}: {cut} of {total} conversations are longer than the {most} positions that "
        f"{setting} gives and are cut to them, which leaves no answer in {bare}"
    )
    if bare == total:
        raise InputError(f"{said}; raise it, or give shorter texts")
    return said
