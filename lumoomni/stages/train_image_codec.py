"""Stage `train_image_codec`: the picture codec learns to rebuild pictures of the micro-world.

The gate: far better than the mean picture, codes in use, and things that survive: what pixel
analysis reads off rebuilt pictures of held-out scenes is what the scenes hold. The same analysis of
the originals is held to a stricter mark, for a judge that errs proves nothing. Sketches, which
later stages learn to draw, must come back whole: there are so few different things in them that
one which the codec loses is lost in every drawing.

It stands beside `train_codecs`, with which it shares nothing: one codec a stage, so that a change
of one does not train the other anew. No other stage is its parent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.artifacts import hash_file
from lumoomni.codecs.facts import MediaCodec
from lumoomni.codecs.image_tokens import ImageTokens
from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.codecs.ink_form import InkAndForm
from lumoomni.codecs.scalar import digits
from lumoomni.data.world.crowds import CrowdConfig, coding_scene
from lumoomni.data.world.marking import ATTRIBUTES, Marks, add_up, mark
from lumoomni.data.world.reading import read_picture
from lumoomni.data.world.scene import Scene, draw, make_scene
from lumoomni.data.world.sketch import sketch
from lumoomni.gates import Check, Metric, Report, bootstrap_mean, bootstrap_ratio, exact, wilson
from lumoomni.infer.assemble import save_part
from lumoomni.media.image import normalise, save_png
from lumoomni.pipeline import StageContext
from lumoomni.train.freeze import freeze
from lumoomni.train.inks import InkConfig, inks_of, learn_inks
from lumoomni.train.loop import LoopConfig, StepLoss, fit, site_of
from lumoomni.train.optim import OptimConfig

PART = "image_codec"
GRID = "rebuilt.png"
SHOWN = 10
ENDINGS = {"seen": "", "unseen": ".unseen"}
"""What a split's metrics end in."""
CONTRAST = 0.3
"""Difference of neighbours (in units of [-1, 1]) that counts as a full edge; grain stays below."""
COMMON, MOST_WEIGHT = 0.6, 4.0
"""The squared difference, summed over colours, of an edge that weighs one; what a faint one may."""


@dataclass(frozen=True, kw_only=True)
class TrainImageCodecConfig:
    """Pictures are those of the micro-world, at the codec's size.

    Pixels near an edge count `edge_weight` times more, for that is where shapes differ; small
    stars are nothing but edges. `slope_weight` is for differences of neighbours, which keeps edges
    sharp.
    """

    codec: ImageCodecConfig = field(default_factory=ImageCodecConfig)
    edge_weight: float = 4.0
    slope_weight: float = 1.0
    crowds: CrowdConfig = field(default_factory=CrowdConfig)
    inks: InkConfig = field(default_factory=InkConfig)
    loop: LoopConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval_items: int = 300
    """Held-out scenes of each split."""
    min_gain: float = 10.0
    min_code_use: float = 0.5
    min_original: float = 0.995
    min_rebuilt: float = 0.98
    min_sketched: float = 0.95
    """Sketches that must come back without a fault."""


@dataclass(frozen=True, kw_only=True)
class PictureBatch:
    """pixels [B, 3, S, S] in [-1, 1]."""

    pixels: Tensor


class ImageCodecTask:
    """Squared error of pixels and of their slopes, more near edges, and the commitment to codes."""

    def __init__(self, codec: ImageCodec, config: TrainImageCodecConfig, seed: int) -> None:
        self.modules: dict[str, nn.Module] = {PART: codec}
        self._codec, self._config, self._seed = codec, config, seed

    def batch(self, index: int) -> PictureBatch:
        size, side = self._config.loop.batch_size, self._codec.config.image_size
        scenes = (
            coding_scene(self._seed, i, self._config.crowds)
            for i in range(index * size, (index + 1) * size)
        )
        return PictureBatch(pixels=normalise([draw(scene, side) for scene in scenes]))

    def weight(self, batch: PictureBatch) -> float:
        return float(len(batch.pixels))

    def loss(self, batch: PictureBatch) -> StepLoss:
        config, pixels = self._config, batch.pixels
        rebuilt, quantised = self._codec(pixels)
        off = rebuilt - pixels
        weights = 1 + config.edge_weight * near_edges(pixels)
        error = (weights * off**2).mean((1, 2, 3)).sum()
        slopes = sum((part**2).mean((1, 2, 3)).sum() for part in _slopes(off))
        shape = self._codec.config
        commitment = quantised.commitment / shape.tokens
        total = error + config.slope_weight * slopes + shape.commitment * commitment
        mse = float((off.detach() ** 2).mean((1, 2, 3)).sum())
        return StepLoss(total, {"mse": mse, "commitment": float(commitment.detach())})


def near_edges(pixels: Tensor) -> Tensor:
    """[B, 3, S, S] -> [B, 1, S, S]: above 0 within two pixels of an edge, up to MOST_WEIGHT.

    More where the edge is faint: it is as much of a shape, but its errors are smaller numbers.
    """
    down, across = (part.square().sum(1, keepdim=True) for part in _slopes(pixels))
    steep = torch.maximum(F.pad(down, (0, 0, 1, 0)), F.pad(across, (1, 0)))
    steep = F.max_pool2d(steep, 5, stride=1, padding=2)
    edge = (steep / CONTRAST**2).clamp(max=1) ** 2
    return edge * (COMMON / steep.clamp(min=CONTRAST**2)).clamp(max=MOST_WEIGHT)


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours below and to the right."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def run(context: StageContext) -> Report:
    """Train, measure, save `image_codec` and a picture of pictures before and after."""
    config: TrainImageCodecConfig = context.config
    torch.manual_seed(context.seed)
    codec = ImageCodec(config.codec)
    if config.codec.ink_digits and config.inks.tries:
        left = learn_colours(codec, config, context.seed)
        context.progress.say(f"{context.name}: digits of colour leave {left:.3f} of a colour")
    fit(ImageCodecTask(codec, config, context.seed), config.loop, config.optim, site_of(context))
    save_part(context.out, PART, codec)
    tokens = ImageTokens(codec, hash_file(context.out / f"{PART}.safetensors"))
    pictures, sketches = (judged_by(tokens, config, context.seed, way) for way in (draw, sketch))
    shown = [
        one for group in (pictures, sketches) for items in group.values() for one in items[:SHOWN]
    ]
    save_png(context.out / GRID, grid(shown))
    return measure(config, pictures, sketches)


def learn_colours(codec: ImageCodec, config: TrainImageCodecConfig, seed: int) -> float:
    """Learn the digits of colour, and let nothing move them later: beside the forms they drift, and
    one colour comes to share another's (LOG.md). Returns what they leave of a colour."""
    scenes = (coding_scene(seed, i, config.crowds) for i in range(config.inks.pictures))
    inks = inks_of(normalise([draw(scene, config.codec.image_size) for scene in scenes]))
    left = learn_inks(codec, inks, config.inks, seed)
    assert isinstance(codec.encoder, InkAndForm)
    freeze(codec.encoder.ink)
    return left


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A scene, its picture uint8 [S, S, 3], its codes [N, 1], and the picture made of these."""

    scene: Scene
    original: np.ndarray
    codes: np.ndarray
    rebuilt: np.ndarray

    @property
    def squared_error(self) -> float:
        """Mean over pixels and channels, in levels squared."""
        return float(np.square(self.rebuilt.astype(np.float64) - self.original).mean())


def held_out(split: str, config: TrainImageCodecConfig, seed: int) -> list[Scene]:
    """The scenes that a codec is judged by."""
    return [make_scene(seed, split, index) for index in range(config.eval_items)]


def judged_by(
    codec: MediaCodec,
    config: TrainImageCodecConfig,
    seed: int,
    way: Callable[[Scene, int], np.ndarray] = draw,
) -> dict[str, list[Rebuilt]]:
    """What became of held-out scenes of each split, drawn in one way."""
    return {
        split: rebuild(codec, held_out(split, config, seed), way) for split in ("seen", "unseen")
    }


def rebuild(
    codec: MediaCodec, scenes: Sequence[Scene], way: Callable[[Scene, int], np.ndarray] = draw
) -> list[Rebuilt]:
    """Every scene drawn, encoded and decoded."""
    pictures = [way(scene, codec.facts.image_size) for scene in scenes]
    coded = codec.encode_batch(pictures)
    return [
        Rebuilt(scene=scene, original=picture, codes=one.codes, rebuilt=codec.decode(one))
        for scene, picture, one in zip(scenes, pictures, coded, strict=True)
    ]


def measure(
    config: TrainImageCodecConfig,
    pictures: Mapping[str, Sequence[Rebuilt]],
    sketches: Mapping[str, Sequence[Rebuilt]],
) -> Report:
    """Gain over the mean picture, code use, PSNR, and what can be read before and after, by split;
    and how many sketches come back without a fault."""
    codes = np.concatenate([one.codes[:, 0] for items in pictures.values() for one in items])
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    metrics: dict[str, Metric] = {
        "image.code_use": exact(code_use(codes, config.codec), n=len(codes)),
        "image.code_perplexity": exact(perplexity, n=len(codes)),
    }
    for split, ending in ENDINGS.items():
        found = {**_likeness(pictures[split]), **_readings(pictures[split])}
        marks = [mark(read_picture(one.rebuilt), one.scene) for one in sketches[split]]
        found["sketched"] = wilson(sum(one.whole for one in marks), len(marks))
        metrics |= {f"image.{name}{ending}": metric for name, metric in found.items()}
    return Report(metrics=metrics)


def code_use(codes: np.ndarray, config: ImageCodecConfig) -> float:
    """The share of a learned codebook that occurs among codes [n], or of the levels of the
    component that uses the fewest: of all combinations of levels most are never meant."""
    if not config.levels:
        return len(np.unique(codes)) / config.codebook_size
    each = digits(torch.from_numpy(codes), config.levels).T
    return min(len(one.unique()) / level for one, level in zip(each, config.levels, strict=True))


def _likeness(items: Sequence[Rebuilt]) -> dict[str, Metric]:
    """Squared error beside that of the mean picture, and PSNR in decibels."""
    originals = np.stack([one.original for one in items]).astype(np.float64)
    base = np.square(originals - originals.mean(0)).mean((1, 2, 3))
    left = [one.squared_error for one in items]
    psnr = [10 * float(np.log10(255**2 / max(error, 1e-9))) for error in left]
    return {"gain": bootstrap_ratio(base.tolist(), left), "psnr": bootstrap_mean(psnr)}


def _readings(items: Sequence[Rebuilt]) -> dict[str, Metric]:
    """Shares of attributes read rightly off originals and off rebuilt pictures."""
    before = add_up([mark(read_picture(one.original), one.scene) for one in items])
    marks = [mark(read_picture(one.rebuilt), one.scene) for one in items]
    after = add_up(marks)
    found = {"read_original": _share(before), "read_rebuilt": _share(after)}
    found |= {f"read_{name}": wilson(after.right[name], after.asked[name]) for name in ATTRIBUTES}
    return {**found, "read_whole": wilson(sum(one.whole for one in marks), len(marks))}


def _share(marks: Marks) -> Metric:
    """Of all that was asked, whatever the attribute."""
    return wilson(sum(marks.right.values()), sum(marks.asked.values()))


def grid(items: Sequence[Rebuilt]) -> np.ndarray:
    """uint8: SHOWN columns; each row of originals stands above the row of what became of them."""
    rows = []
    for start in range(0, len(items), SHOWN):
        part = items[start : start + SHOWN]
        rows += [[one.original for one in part], [one.rebuilt for one in part]]
    most = max(len(row) for row in rows)
    blank = np.full_like(items[0].original, 255)
    framed = [
        np.concatenate([np.pad(p, ((2, 2), (2, 2), (0, 0)), constant_values=255) for p in row], 1)
        for row in ([*row, *[blank] * (most - len(row))] for row in rows)
    ]
    return np.concatenate(framed, 0)


def checks(config: TrainImageCodecConfig) -> tuple[Check, ...]:
    """The gate."""
    check = partial(Check, op=">=", min_n=min(100, config.eval_items))
    found = [
        check(
            metric="image.code_use",
            threshold=config.min_code_use,
            why="a codebook that is not used was not learned",
        )
    ]
    for ending in ENDINGS.values():
        found += [
            check(
                metric=f"image.gain{ending}",
                threshold=config.min_gain,
                why="squared error of the mean picture over the codec's: it must carry the picture",
            ),
            check(
                metric=f"image.read_original{ending}",
                threshold=config.min_original,
                why="a judge that misreads drawings cannot judge a codec",
            ),
            check(
                metric=f"image.read_rebuilt{ending}",
                threshold=config.min_rebuilt,
                why="count, colours, shapes, sizes and relations must survive coding",
            ),
            check(
                metric=f"image.sketched{ending}",
                threshold=config.min_sketched,
                why="what the codec loses of sketches is lost in every drawing",
            ),
        ]
    return tuple(found)
