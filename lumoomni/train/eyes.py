"""A frozen tower that is looked through: always so many pictures at once, or never again.

Knows: towers, and features that were kept (`data/feature_cache.py`).
Does not know: connectors or what is learned. Costs: the tower's forward, for a padded last group.

Groups of one size, and the same arithmetic inside and outside of training, make a picture's
features the same bits whatever stands beside it, so that what was kept equals what would be seen.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lumoomni.data.feature_cache import FeatureCache, FeatureFacts
from lumoomni.data.sample import PictureItem, PictureSource
from lumoomni.data.watched import watched
from lumoomni.errors import InputError
from lumoomni.model.siglip import SiglipTower
from lumoomni.model.vision import VisionTower
from lumoomni.runtime import Progress
from lumoomni.train.freeze import fingerprint
from lumoomni.train.precision import bf16_supported


@dataclass(frozen=True, kw_only=True)
class Eyes:
    """A tower in evaluation mode; `at_once` pictures go through it together.

    An fp32 tower looks in bfloat16 autocast where that is native, if `bf16` (`LoopConfig.bf16`), an
    adopted one in its own type.
    """

    tower: VisionTower | SiglipTower
    at_once: int = 8
    bf16: bool = True

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise ValueError(f"at least 1 picture must go through at once, got {self.at_once}")

    @property
    def casts(self) -> bool:
        """Whether products are made in bfloat16 autocast."""
        weight = next(self.tower.parameters())
        full = weight.dtype == torch.float32
        return self.bf16 and full and bf16_supported(weight.device)

    @torch.no_grad()
    def patches(self, pixels: Tensor) -> Tensor:
        """pixels [I, 3, S, S] -> [I, N, V]."""
        weight, found = next(self.tower.parameters()), []
        with torch.autocast(
            weight.device.type, torch.bfloat16, enabled=self.casts, cache_enabled=False
        ):
            for first in range(0, len(pixels), self.at_once):
                part = pixels[first : first + self.at_once].to(weight.device)
                missing = self.at_once - len(part)
                if missing:
                    part = torch.cat([part, part[:1].expand(missing, -1, -1, -1)])
                seen = self.tower(part).patches
                found.append(seen[: self.at_once - missing])
        return torch.cat(found)


def prepared(layout_prepare: Callable[[list[np.ndarray]], Tensor], tower: torch.nn.Module) -> str:
    """A hash of how pictures are prepared: the processor's own settings."""
    facts = tower.processor_facts() if isinstance(tower, SiglipTower) else layout_prepare.__name__
    return hashlib.sha256(facts.encode()).hexdigest()


def fill_cache(
    root: Path,
    eyes: Eyes,
    source: PictureSource,
    prepare: Callable[[list[np.ndarray]], Tensor],
    indices: Sequence[int],
    progress: Progress,
) -> FeatureCache:
    """Look once at every picture of the training items `indices` that is not kept yet.

    Raises InputError when they show none.
    """
    shown = next((i for i in indices if not source.outline("train", i).text_only), None)
    if shown is None:
        raise InputError("the data shows no picture whose features could be kept; give pictures")
    first = eyes.patches(prepare([source.item("train", shown).image]))[0]
    facts = FeatureFacts(
        tower=fingerprint(eyes.tower),
        prepare=prepared(prepare, eyes.tower),
        device=first.device.type + (" bfloat16" if eyes.casts else ""),
        shape=(first.shape[0], first.shape[1]),
        dtype=str(first.dtype).removeprefix("torch."),
    )
    cache = FeatureCache(root, facts)
    missing: dict[str, tuple[int, int]] = {}
    for index in watched(indices, "hashing pictures", "sample"):
        for place, key in enumerate(source.fingerprints("train", index)):
            if key not in cache:
                missing.setdefault(key, (index, place))

    def made() -> Iterator[tuple[str, Tensor]]:
        keys = list(missing)
        for start in range(0, len(keys), eyes.at_once):
            part = keys[start : start + eyes.at_once]
            images = [_picture(source.item("train", missing[k][0]), missing[k][1]) for k in part]
            pixels = torch.cat([prepare([image]) for image in images])
            yield from zip(part, eyes.patches(pixels), strict=True)

    if missing:
        with progress.task("caching features", total=len(missing), unit="picture") as bar:
            for done in cache.fill(made(), len(missing)):
                bar.update(done)
    return cache


def _picture(item: PictureItem, place: int) -> np.ndarray:
    return item.pictures[place]
