"""Do features land exactly between the markers? Planted features against the model's own embedding.

Knows: the two markers of a picture, batches as training makes them, padded or packed.
Does not know: towers, connectors or losses; features are random numbers, so that each can be told.
Costs: one embedding of a batch, and a copy of it; nothing of it is learned from.

Why: where features are written one position late, training and measuring agree with each other, so
losses fall and every ablation holds; only whoever follows the markers sees it.
"""

import itertools

import torch

from lumoomni.codecs.text import TextCodec
from lumoomni.data.conversation import Batch
from lumoomni.errors import GateFailure
from lumoomni.ids import IMAGE_PATCH
from lumoomni.model.omni import OmniInputs, OmniModel, device_of
from lumoomni.uti.sequence import MARKERS


@torch.no_grad()
def check_placement(model: OmniModel, codec: TextCodec, batch: Batch, stage: str) -> int:
    """Compare every position of a batch [B, T], bit for bit; returns how many hold a feature.

    Raises GateFailure with both numbers where a picture has too many or too few positions between
    its markers, and with the place of the first position that holds something else than it must.
    """
    shape, device = model.image_positions, device_of(model)
    batch = batch.to(device)
    begin, end = (codec.special(name) for name in MARKERS["image"])
    where = _between(batch, begin, end, shape, stage)
    pictures = len(where) // shape
    source = torch.Generator().manual_seed(0)
    width = model.thinker.config.width
    planted = torch.randn(pictures, shape, width, generator=source).to(device)
    planted = planted.to(model.thinker.token_table.weight.dtype)
    inputs = OmniInputs(
        ids=batch.ids, lengths=batch.lengths, documents=batch.documents, numbers=batch.numbers
    )
    found = model.embed(inputs, planted if pictures else None)
    wanted = model.thinker.embed(batch.ids.clamp(min=0)).clone()
    for (row, place), feature in zip(where, planted.flatten(0, 1), strict=True):
        wanted[row, place] = feature.to(wanted.dtype)
    wanted = model.thinker.numbered(wanted, batch.numbers)
    wrong = (found != wanted).any(-1).nonzero().tolist()
    if wrong:
        row, place = wrong[0]
        raise GateFailure(
            f"{stage} cannot begin: {len(wrong)} of {batch.ids.numel()} positions do not hold what "
            f"stands there, first position {place} of row {row}; features must stand between the "
            "markers of their picture and nowhere else"
        )
    return len(where)


def _between(batch: Batch, begin: int, end: int, shape: int, stage: str) -> list[tuple[int, int]]:
    """(row, position) of every feature in reading order, found by the markers alone."""
    where: list[tuple[int, int]] = []
    for row, (ids, length) in enumerate(
        zip(batch.ids.tolist(), batch.lengths.tolist(), strict=True)
    ):
        held = sum(one == IMAGE_PATCH for one in ids[:length])
        # Somebody's text may spell a marker; only what opens on placeholders is a picture.
        pairs = enumerate(itertools.pairwise(ids[:length]))
        opened = [place for place, pair in pairs if pair == (begin, IMAGE_PATCH)]
        for first in opened:
            stop = next((place for place in range(first, length) if ids[place] == end), length)
            room = stop - first - 1
            filled = sum(one == IMAGE_PATCH for one in ids[first + 1 : stop])
            if (room, filled) != (shape, shape):
                raise GateFailure(
                    f"{stage} cannot begin: the picture at position {first} of row {row} has "
                    f"{filled} placeholders in {room} positions between its markers, but the "
                    f"connector gives {shape} features"
                )
            where += [(row, place) for place in range(first + 1, stop)]
        if held != shape * len(opened):
            raise GateFailure(
                f"{stage} cannot begin: row {row} holds {held} placeholders, but {len(opened)} "
                f"pictures of {shape} features have {shape * len(opened)}"
            )
    return where
