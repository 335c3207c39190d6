"""Stage C, `train_vision_encoder`: ViT-Tiny learns from captions.

Two-way sigmoid contrast, and two objectives that make it quick on a laptop: which words the
caption has, and each word at its place, predicted in parallel from the patches.
The gate: the right caption among a hundred, and attributes that a linear probe can read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from lumoomni.audits.text import share_right, vocabulary_rows
from lumoomni.audits.vision import probe, recall_at_one
from lumoomni.codecs.text import TextCodec
from lumoomni.data.sample import UNTOLD, PictureItem, Source, take
from lumoomni.data.sources import open_pictures
from lumoomni.data.world.scene import Scene, draw, make_scene
from lumoomni.gates import Check, Metric, Report
from lumoomni.infer.assemble import save_part
from lumoomni.media.image import normalise as to_pixels
from lumoomni.model.regions import IGNORE, expect_words, region_losses
from lumoomni.model.vision import VisionTower, VisionTowerConfig
from lumoomni.pipeline import StageContext
from lumoomni.train.contrast import CaptionHeads, CaptionHeadsConfig
from lumoomni.train.loop import LoopConfig, StepLoss, fit, site_of
from lumoomni.train.optim import OptimConfig

CANDIDATES = 100
MOST_REGIONS = 8  # of one picture, when they are counted


@dataclass(frozen=True, kw_only=True)
class TrainVisionEncoderConfig:
    """`heads.vocab_size` and `vision.symbols` are set from the tokenizer.

    `vision.region_words` needs pictures with described regions; without them it is set to 0.
    """

    data: str = "world"
    vision: VisionTowerConfig
    heads: CaptionHeadsConfig
    loop: LoopConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    contrast_weight: float = 0.3
    words_weight: float = 0.5
    places_weight: float = 1.0
    centres_weight: float = 0.5
    regions_weight: float = 2.0
    told_share: float = 0.5
    """Share of captions predicted word after word; the others are predicted all at once."""
    probe_train: int = 1500
    probe_test: int = 400
    min_recall: float = 0.90
    min_probe: float = 0.98


@dataclass(frozen=True, kw_only=True)
class PictureBatch:
    """pixels [B, 3, S, S], caption ids [B, T], mask [B, T], same [B, B] equal captions.

    centred [B, N] is True at the centres of described regions. K patches lie in such regions:
    covered [K, 2] says which (picture, patch), classes [K, R] with which words (0: no more,
    IGNORE: not told).
    """

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    same: Tensor
    centred: Tensor
    covered: Tensor
    classes: Tensor


def padded_ids(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of ids as one [K, T] tensor with a mask of the real ones."""
    longest = max((len(row) for row in rows), default=0)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return ids, mask


def picture_batch(
    codec: TextCodec, items: Sequence[PictureItem], most: int, grid: int, region_words: int
) -> PictureBatch:
    """Pictures of grid x grid patches, captions cut to `most` ids, regions to `region_words`."""
    ids, mask = padded_ids([codec.encode(" " + item.caption)[:most] for item in items])
    covered, classes = [], []
    centred = torch.zeros(len(items), grid * grid, dtype=torch.bool)
    for i, item in enumerate(items if region_words else ()):
        for region in item.regions:
            cells = region.cells(grid)
            centred[i, region.centre(grid)] = True
            covered += [(i, cell) for cell in cells]
            classes += [region_classes(codec, region.text, region_words)] * len(cells)
    captions = np.array([item.caption for item in items])
    return PictureBatch(
        pixels=to_pixels([item.image for item in items]),
        ids=ids,
        mask=mask,
        same=torch.from_numpy(captions[:, None] == captions[None, :]),
        centred=centred,
        covered=torch.tensor(covered, dtype=torch.long).view(-1, 2),
        classes=torch.tensor(classes, dtype=torch.long).view(-1, max(1, region_words)),
    )


def region_classes(codec: TextCodec, text: str, words: int) -> list[int]:
    """A description as `words` classes of the region reader: ids plus one, then blanks.

    A word that is not told takes one place, as IGNORE.
    """
    classes: list[int] = []
    for word in text.split():
        classes += [IGNORE] if word == UNTOLD else [i + 1 for i in codec.encode(" " + word)]
    return classes[:words] + [0] * (words - len(classes))


class CaptionTask:
    """Contrast, words, places and regions over picture-caption pairs."""

    def __init__(
        self,
        tower: VisionTower,
        heads: CaptionHeads,
        source: Source[PictureItem],
        codec: TextCodec,
        config: TrainVisionEncoderConfig,
    ) -> None:
        self.modules: dict[str, nn.Module] = {"vision": tower, "heads": heads}
        self._tower, self._heads = tower, heads
        self._source, self._codec, self._config = source, codec, config

    def batch(self, index: int) -> PictureBatch:
        size = self._config.loop.batch_size
        items = [self._source.item("train", index * size + i) for i in range(size)]
        most, shape = self._config.heads.max_tokens, self._tower.config
        return picture_batch(self._codec, items, most, shape.grid, shape.region_words)

    def weight(self, batch: PictureBatch) -> float:
        return float(len(batch.pixels))

    def loss(self, batch: PictureBatch) -> StepLoss:
        config, heads = self._config, self._heads
        features = self._tower(batch.pixels)
        texts = heads.text(batch.ids, batch.mask)
        contrast = heads.contrast(heads.image(features.cls), texts, batch.same)
        words = heads.words(features.cls, batch.ids, batch.mask)
        told = torch.rand(len(batch.ids), device=batch.ids.device) < config.told_share
        places = heads.places(features.patches, batch.ids, batch.mask, told)
        total = (
            config.contrast_weight * contrast
            + config.words_weight * words
            + config.places_weight * places
        )
        parts = {"contrast": contrast, "words": words, "places": places}
        if self._tower.reader is not None and len(batch.covered):
            centres, said = region_losses(
                self._tower.reader, features.patches, batch.centred, batch.covered, batch.classes
            )
            # Means, times B: one unit a picture, as the others.
            parts["centres"], parts["regions"] = (len(batch.pixels) * x for x in (centres, said))
            total = total + config.centres_weight * parts["centres"]
            total = total + config.regions_weight * parts["regions"]
        return StepLoss(total, {name: float(value.detach()) for name, value in parts.items()})


def run(context: StageContext) -> Report:
    """Train, measure, save `vision` (the heads were only for learning)."""
    from dataclasses import replace

    config: TrainVisionEncoderConfig = context.config
    codec = TextCodec.load(context.parents["pretrain_text"].file("tokenizer.json"))
    source = open_pictures(config.data, context.seed, config.vision.image_size)
    torch.manual_seed(context.seed)
    tower = new_tower(config.vision, codec, source, context)
    heads = CaptionHeads(
        replace(config.heads, vocab_size=vocabulary_rows(codec)), config.vision.encoder.width
    )
    heads.expect(common_ids(codec, source))
    task = CaptionTask(tower, heads, source, codec, config)
    fit(task, config.loop, config.optim, site_of(context))
    save_part(context.out, "vision", tower)
    return measure(config, source, codec, tower, heads, context)


def new_tower(
    shape: VisionTowerConfig, codec: TextCodec, source: Source[PictureItem], context: StageContext
) -> VisionTower:
    """A fresh tower, with a reader of regions where it is wanted and regions are described."""
    from dataclasses import replace

    if not shape.region_words:
        return VisionTower(shape)
    described = [r.text for item in take(source, "train", 500) for r in item.regions]
    if not described:
        context.progress.say("no picture has described regions: learning from captions alone")
        return VisionTower(replace(shape, region_words=0))
    tower = VisionTower(replace(shape, symbols=codec.vocab_size))
    assert tower.reader is not None
    rows = [region_classes(codec, text, shape.region_words) for text in described]
    expect_words(tower.reader, torch.tensor(rows))
    return tower


def common_ids(codec: TextCodec, source: Source[PictureItem], most: int = 500) -> Tensor:
    """All ids of the first captions, for the frequencies that the heads start from."""
    count = min(most, source.size("train") or most)
    rows = [codec.encode(" " + source.item("train", i).caption) for i in range(count)]
    return torch.tensor([token for row in rows for token in row])


@torch.inference_mode()
def measure(
    config: TrainVisionEncoderConfig,
    source: Source[PictureItem],
    codec: TextCodec,
    tower: VisionTower,
    heads: CaptionHeads,
    context: StageContext,
) -> Report:
    """R@1 among a hundred different captions, seen and unseen pairs, and attribute probes."""
    metrics: dict[str, Metric] = {}
    splits = ("seen", "unseen") if config.data == "world" else ("seen",)
    for split in splits:
        items = different_captions(source, split, CANDIDATES)
        batch = picture_batch(codec, items, config.heads.max_tokens, config.vision.grid, 0)
        images = heads.image(tower(batch.pixels).cls)
        texts = heads.text(batch.ids, batch.mask)
        for way, metric in recall_at_one(images, texts).items():
            metrics[f"vision.recall.{way}" + (".unseen" if split == "unseen" else "")] = metric

    def features(scenes: Sequence[Scene]) -> Tensor:
        pixels = to_pixels([draw(s, config.vision.image_size) for s in scenes])
        out = [tower(part) for part in pixels.split(128)]
        return torch.cat([torch.cat([f.cls, f.patches.amax(1)], 1) for f in out])

    def singles(split: str, first: int, count: int) -> list[Scene]:
        return [make_scene(context.seed, split, first + i, count=1) for i in range(count)]

    train = singles("train", 10**7, config.probe_train)
    for name, metric in probe(features, train, singles("seen", 0, config.probe_test)).items():
        metrics[f"vision.probe.{name}"] = metric
    for name, metric in probe(features, train, singles("unseen", 0, config.probe_test)).items():
        metrics[f"vision.probe.{name}.unseen"] = metric
    if tower.reader is not None:
        for split in splits:
            name = "vision.regions.right" + (".unseen" if split == "unseen" else "")
            metrics[name] = share_right(regions_right(tower, codec, take(source, split, 400)))
    return Report(metrics=metrics)


def regions_right(tower: VisionTower, codec: TextCodec, items: Sequence[PictureItem]) -> list[bool]:
    """Whether a picture is read as just its regions' descriptions, in any order."""
    assert tower.reader is not None
    right = []
    for start in range(0, len(items), 100):
        part = items[start : start + 100]
        patches = tower(to_pixels([item.image for item in part])).patches
        for item, found in zip(part, tower.reader.read(patches, MOST_REGIONS), strict=True):
            texts = sorted(codec.decode(ids).strip() for ids in found)
            right.append(texts == sorted(region.text for region in item.regions))
    return right


def different_captions(source: Source[PictureItem], split: str, count: int) -> list[PictureItem]:
    """The first `count` items with different captions (fewer if the data holds fewer)."""
    found: dict[str, PictureItem] = {}
    for index in range(20 * count):
        item = source.item(split, index)
        found.setdefault(item.caption, item)
        if len(found) == count:
            break
    return list(found.values())


def checks(config: TrainVisionEncoderConfig) -> tuple[Check, ...]:
    """The gate."""
    why = "the caption of a picture must be found among a hundred, and the other way round"
    found = [
        Check(
            metric=f"vision.recall.{way}",
            op=">=",
            threshold=config.min_recall,
            min_n=CANDIDATES if config.data == "world" else 20,
            why=why,
        )
        for way in ("image_to_text", "text_to_image")
    ]
    if config.data == "world":
        check = partial(Check, op=">=", min_n=min(100, config.probe_test))
        found += [
            check(
                metric=f"vision.probe.{name}",
                threshold=config.min_probe,
                why=f"the {name} of a thing must be plain in the features",
            )
            for name in ("colour", "shape", "size")
        ]
    return tuple(found)
