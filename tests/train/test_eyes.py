"""Looking through a frozen tower: the same bits in any company, and kept ones equal seen ones."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from lumoomni.data.conversation import Layout
from lumoomni.data.feeding import Feed
from lumoomni.data.packing import PackConfig
from lumoomni.data.sample import UNSEEN, PictureItem
from lumoomni.media.image import normalise
from lumoomni.model.encoder import EncoderConfig
from lumoomni.model.vision import VisionTower, VisionTowerConfig
from lumoomni.runtime import Progress
from lumoomni.train.eyes import Eyes, fill_cache
from tests.tiny import MEL, text_codec

pytest.importorskip("pyarrow")


def tower(seed: int = 0) -> VisionTower:
    torch.manual_seed(seed)
    encoder = EncoderConfig(width=32, layers=2, heads=2, ffn_width=48)
    return VisionTower(VisionTowerConfig(image_size=32, patch=8, encoder=encoder)).eval()


@dataclass
class Pictures:
    """Noise with captions; the same picture comes back after ten."""

    opened: list[int] = field(default_factory=list)

    def item(self, split: str, index: int) -> PictureItem:
        self.opened.append(index)
        stream = np.random.default_rng(index % 10)
        image = stream.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        return PictureItem(image, f"number {index % 7}", None, str(index))

    def outline(self, split: str, index: int) -> PictureItem:
        return PictureItem(UNSEEN, f"number {index % 7}", None, str(index))

    def fingerprints(self, split: str, index: int) -> tuple[str, ...]:
        return (str(index % 10),)

    def size(self, split: str) -> int | None:
        return 40


def test_a_picture_looks_the_same_in_any_company() -> None:
    torch.manual_seed(0)
    eyes, pixels = Eyes(tower=tower(), at_once=4), torch.randn(11, 3, 32, 32)
    whole = eyes.patches(pixels)
    for order in (torch.arange(11).flip(0), torch.tensor([3]), torch.tensor([9, 2])):
        assert torch.equal(eyes.patches(pixels[order]), whole[order])
    with pytest.raises(ValueError, match="at least 1 picture"):
        Eyes(tower=tower(), at_once=0)


def test_float32_is_float32_here_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumoomni.train.eyes.bf16_supported", lambda device: True)
    pixels = torch.randn(3, 3, 32, 32)
    full, half = (Eyes(tower=tower(), bf16=bf16) for bf16 in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(full.patches(pixels), tower()(pixels).patches)
    assert not torch.allclose(full.patches(pixels), half.patches(pixels), atol=1e-4)
    kept = [
        fill_cache(tmp_path, eyes, Pictures(), normalise, range(4), Progress(silent=True))
        for eyes in (full, half, full)
    ]
    assert kept[0].facts.key == kept[2].facts.key != kept[1].facts.key


@pytest.mark.parametrize("pack", [0, 64])
def test_kept_features_are_the_ones_that_would_be_seen(tmp_path: Path, pack: int) -> None:
    codec, source, eyes = text_codec(), Pictures(), Eyes(tower=tower(), at_once=3)
    layout = Layout(text_codec=codec, template="compact", mel=MEL, image_positions=4)

    def feed(**more: object) -> Feed:
        packing = PackConfig(capacity=pack) if pack else None
        return Feed(
            source,
            layout,
            "say",
            batch_size=2 if pack else 8,
            context=60,
            pack=packing,
            **more,  # type: ignore[arg-type]
        )

    plain, silent = feed(), Progress(silent=True)
    indices = plain.indices(5)
    cache = fill_cache(tmp_path, eyes, source, normalise, indices, silent)
    assert len(cache) == 10  # each picture once, however often it comes
    looked = len(source.opened)
    kept = feed(cache=cache)
    batches = [kept.batch(i).batch for i in range(5)]
    assert len(source.opened) == looked, "with kept features no picture is opened"
    for i, batch in enumerate(batches):
        wanted = plain.batch(i).batch
        assert batch.pixels is None and batch.features is not None and wanted.pixels is not None
        assert torch.equal(batch.ids, wanted.ids) and torch.equal(batch.labels, wanted.labels)
        assert torch.equal(batch.features, eyes.patches(wanted.pixels))
    again = fill_cache(tmp_path, eyes, source, normalise, indices, silent)
    assert again.folder == cache.folder and len(again) == 10
    other = fill_cache(tmp_path, Eyes(tower=tower(1)), source, normalise, range(2), silent)
    assert other.folder != cache.folder
