"""Packing: every sample once, rows nearly full, and nothing leaks from one document to the next."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumoomni.data.conversation import Encoded, Layout, Turn, collate
from lumoomni.data.packing import PackConfig, best_fit, collate_packed, fill, plan_packs
from lumoomni.ids import IGNORE
from lumoomni.model.omni import OmniInputs, OmniModel
from lumoomni.model.thinker import Thinker
from lumoomni.train.loss import lm_loss
from tests.tiny import MEL, modules, text_codec

CODEC = text_codec()
LAYOUT = Layout(text_codec=CODEC, template="compact", mel=MEL, image_positions=4)


@given(st.lists(st.integers(1, 50), max_size=80), st.integers(0, 5))
def test_every_sample_has_one_place_and_rows_hold(lengths: list[int], seed: int) -> None:
    packs = plan_packs(lengths, PackConfig(capacity=50, window=30), seed)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in pack) <= 50 for pack in packs)
    assert packs == plan_packs(lengths, PackConfig(capacity=50, window=30), seed)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_best_fit_wastes_little(lengths: list[int]) -> None:
    """No two rows could be one, and the bound of best-fit-decreasing holds (11/9 of the least)."""
    bins = best_fit(lengths, 40)
    rooms = sorted(sum(lengths[i] for i in chosen) for chosen in bins)
    assert len(rooms) < 2 or rooms[0] + rooms[1] > 40
    assert len(bins) <= 11 / 9 * -(-sum(lengths) // 40) * 2 + 1


def test_captions_fill_97_percent() -> None:
    stream = np.random.default_rng(0)
    lengths = (66 + 12 + stream.gamma(3.0, 8.0, 20_000)).astype(int).tolist()
    for capacity in (2048, 4096):
        packs = plan_packs(lengths, PackConfig(capacity=capacity), 0)
        assert fill(lengths, packs, capacity) >= 0.97


def test_what_fits_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="sample 1 has 60 positions, but a row holds 1 to 50"):
        best_fit([3, 60], 50)
    with pytest.raises(ValueError, match="no conversations"):
        collate_packed([[]])


def conversations(count: int) -> list[Encoded]:
    """Alternately with a picture (once two), a sound, both and neither."""
    stream = np.random.default_rng(1)
    made = []
    for i in range(count):
        shown = stream.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        images = tuple(shown[: 1 + (i == 3)]) if i % 2 else ()
        sounds = (stream.standard_normal(3000 + 400 * i).astype(np.float32) / 9,) if i % 3 else ()
        asked = Turn(role="user", text="what colour?" * (i % 3), images=images, sounds=sounds)
        made.append(LAYOUT.encode((asked, Turn(role="assistant", text="red circle" * (1 + i % 2)))))
    return made


def forward(model: OmniModel, batch) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return model(
        OmniInputs(
            ids=batch.ids,
            lengths=batch.lengths,
            pixels=batch.pixels,
            mels=batch.mels,
            mel_lengths=batch.mel_lengths,
            documents=batch.documents,
            numbers=batch.numbers,
        )
    ).hidden


@pytest.mark.parametrize("short_conv", [0, 3])
def test_packed_equals_unpacked(short_conv: int) -> None:
    parts = modules(CODEC)
    torch.manual_seed(2)
    thinker = parts["thinker"]
    assert isinstance(thinker, Thinker)
    thinker = Thinker(replace(thinker.config, short_conv=short_conv))
    if thinker.short_conv is not None:
        torch.nn.init.normal_(next(iter(thinker.short_conv.parameters())))
    names = ("vision", "image_connector", "audio", "audio_connector")
    model = OmniModel(thinker, **{n: parts[n] for n in names}).eval()  # type: ignore[arg-type]
    items = conversations(7)
    rows = [items[:3], items[3:4], items[4:]]
    packed = collate_packed(rows)
    assert packed.numbers is not None and int((packed.numbers >= 0).sum()) == LAYOUT.image_positions
    with torch.no_grad():
        hidden = forward(model, packed)
        place = [0, 0]
        for r, row in enumerate(rows):
            place = [r, 0]
            for item in row:
                alone = forward(model, collate([item]))[0, : len(item)]
                found = hidden[place[0], place[1] : place[1] + len(item)]
                torch.testing.assert_close(found, alone, atol=2e-5, rtol=1e-4)
                place[1] += len(item)
        head = thinker.head_weight()
        alone = [lm_loss(forward(model, b), b.labels, head) for b in map(collate, zip(items))]
        together = lm_loss(hidden, packed.labels, head)
    assert together.count == sum(one.count for one in alone)
    assert float(together.total) == pytest.approx(sum(float(one.total) for one in alone), rel=1e-4)


def test_a_documents_first_token_is_no_label() -> None:
    items = conversations(2)
    items[1].sequence.labels[0] = items[1].sequence.ids[0]
    packed = collate_packed([items])
    assert int(packed.labels[0, len(items[0])]) == IGNORE
    assert packed.documents is not None
    assert packed.documents[0].tolist() == [0] * len(items[0]) + [1] * len(items[1])
