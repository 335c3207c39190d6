"""Kept features: the same bytes back, by tower and picture; whole shards or none."""

import shutil
from pathlib import Path

import pytest
import torch

from lumoomni.data import feature_cache
from lumoomni.data.feature_cache import FeatureCache, FeatureFacts
from lumoomni.errors import InputError

pytest.importorskip("pyarrow")


def facts(**changes: object) -> FeatureFacts:
    base = {"tower": "t", "prepare": "p", "device": "cpu", "shape": (3, 5), "dtype": "bfloat16"}
    return FeatureFacts(**{**base, **changes})  # type: ignore[arg-type]


def rows(count: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"k{i}": torch.randn(3, 5).bfloat16() for i in range(count)}


def test_what_was_kept_comes_back_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "SHARD_BYTES", 4 * facts().each)
    made = rows(10)
    cache = FeatureCache(tmp_path, facts())
    assert sum(cache.fill(made.items(), 10)) == 10
    assert len(list(cache.folder.glob("*.arrow"))) == 3
    for opened in (cache, FeatureCache(tmp_path, facts())):
        assert len(opened) == 10 and "k3" in opened and "k10" not in opened
        found = opened.read(["k9", "k0", "k9"])
        wanted = torch.stack([made["k9"], made["k0"], made["k9"]])
        assert torch.equal(found.view(torch.int16), wanted.view(torch.int16))
    with pytest.raises(KeyError):
        cache.read(["k10"])


def test_whole_shards_survive_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "SHARD_BYTES", 4 * facts().each)
    filling = FeatureCache(tmp_path, facts()).fill(rows(10).items(), 10)
    for _ in range(6):
        next(filling)
    filling.close()
    assert len(FeatureCache(tmp_path, facts())) == 4


@pytest.mark.parametrize(
    "change",
    [{"tower": "u"}, {"prepare": "q"}, {"device": "cuda"}, {"dtype": "float32"}, {"shape": (5, 3)}],
)
def test_another_tower_or_processor_has_another_cache(
    tmp_path: Path, change: dict[str, object]
) -> None:
    list(FeatureCache(tmp_path, facts()).fill(rows(2).items(), 2))
    assert len(FeatureCache(tmp_path, facts(**change))) == 0


def test_what_cannot_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path, facts())
    with pytest.raises(ValueError, match="the cache holds"):
        list(cache.fill([("k", torch.zeros(3, 4).bfloat16())], 1))
    list(cache.fill(rows(2).items(), 2))
    path = next(cache.folder.glob("*.arrow"))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="is no whole shard of features"):
        FeatureCache(tmp_path, facts())
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(InputError, match="disk"):
        list(FeatureCache(tmp_path / "x", facts()).fill(rows(2).items(), 2))
