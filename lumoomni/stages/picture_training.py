"""What Track A's stages share: the settings of training on pictures, the batches, the gate's core.

Knows: a source of pictures with words, how batches of it are made, what every such gate asks for.
Does not know: what is trained. Costs: with `cache_features` the tower looks at all pictures first.
"""

from dataclasses import dataclass, field
from functools import partial

from lumoomni.audits.ablation import EMPTY
from lumoomni.data.conversation import Encoded, Layout, picture_turns
from lumoomni.data.feature_cache import FeatureCache
from lumoomni.data.feeding import Feed
from lumoomni.data.packing import PackConfig
from lumoomni.data.sample import PictureItem, PictureSource
from lumoomni.data.sources import text_only
from lumoomni.errors import InputError
from lumoomni.gates import Check, Metric, exact
from lumoomni.infer.assemble import ModelSettings
from lumoomni.pipeline import StageContext
from lumoomni.runtime import resolve_device
from lumoomni.train.devices import resident
from lumoomni.train.eyes import Eyes, fill_cache
from lumoomni.train.loop import LoopConfig
from lumoomni.train.optim import OptimConfig
from lumoomni.uti.sequence import TEMPLATES

DESCRIBE = "Describe the picture."


@dataclass(frozen=True, kw_only=True)
class PictureTrainingConfig:
    """Settings of every stage that learns from pictures with words."""

    data: str = ""
    """A source as `data/sources.py` names them; `?text_only=` says what becomes of conversations
    without a picture."""
    prompt: str = DESCRIBE
    template: str = ""
    """`compact`, `chatml`, `qwen3` or `plain`; empty: as the Thinker learned to talk."""
    loop: LoopConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval_items: int = 200
    golden: int = 16
    golden_times: int = 8
    """Held-out pictures that are described again and again, and how many times in a run."""
    context: int = 512
    """Longest sequence; longer ones are cut, and counted as truncated."""
    pack: int = 0
    """Positions of a row that several samples share; a micro-batch is then `batch_size` rows. 0
    pads samples to the longest instead."""
    cache_features: bool = False
    """Look at every picture once, keep what the tower saw, and train from that."""
    tower_batch: int = 8
    """Pictures that go through the tower together."""
    max_truncated: float = 0.01
    rank_wrong: bool = True
    """Demand that another's picture serves better than none. Where a picture says all that its
    caption says, as in the micro-world, whoever reads it is misled by another's more than by
    none (LOG.md); every wrong input must then only be worse than the right one."""


def encode(layout: Layout, item: PictureItem, prompt: str) -> Encoded:
    """A picture with its conversation, or with the request and the caption as the answer."""
    return layout.encode(picture_turns(item, prompt))


def template_of(config: PictureTrainingConfig, settings: ModelSettings, stage: str) -> str:
    """The stage's own template, or the Thinker's. Raises InputError for one that is none."""
    if config.template and config.template not in TEMPLATES:
        raise InputError(
            f"{stage}.template is {config.template!r}, and the Thinker talks as "
            f"{settings.template!r}; use one of {', '.join(sorted(TEMPLATES))}, or leave it empty"
        )
    return config.template or settings.template


def open_feed(
    context: StageContext,
    config: PictureTrainingConfig,
    source: PictureSource,
    layout: Layout,
    eyes: Eyes,
) -> Feed:
    """The training batches; with `cache_features` the tower looks at all their pictures here."""

    def feed(cache: FeatureCache | None = None) -> Feed:
        return Feed(
            source,
            layout,
            config.prompt,
            batch_size=config.loop.batch_size,
            context=config.context,
            pack=PackConfig(capacity=config.pack) if config.pack else None,
            seed=context.seed,
            cache=cache,
        )

    plain = feed()
    if not config.cache_features:
        return plain
    indices = plain.indices(config.loop.steps * config.loop.accumulate)
    size = source.size("train")
    indices = indices if size is None else indices[:size]
    folder = context.cache / "features"
    with resident((eyes.tower,), resolve_device(context.device)):
        return feed(fill_cache(folder, eyes, source, layout.prepare, indices, context.progress))


def text_facts(source: PictureSource) -> dict[str, Metric]:
    """How many conversations without a picture there are, where there are any."""
    count = text_only(source)
    return {"data.text_only": exact(float(count), n=count)} if count else {}


def picture_checks(config: PictureTrainingConfig) -> tuple[Check, ...]:
    """The gate of every stage that learns from pictures."""
    if config.eval_items < 20:
        raise InputError(f"eval_items is {config.eval_items}; a gate needs at least 20 items")
    least = partial(Check, op=">", threshold=0.0, bound="low", min_n=min(100, config.eval_items))
    rival = "shuffled" if config.rank_wrong else "correct"
    empty = [
        least(
            metric=f"ablation.{name}_over_{rival}",
            why=f"{name} in a picture's place must serve worse than "
            + ("any picture" if config.rank_wrong else "the right one"),
        )
        for name in EMPTY
    ]
    return (
        least(
            metric="ablation.shuffled_over_correct",
            why="another picture must serve worse than the right one, or pictures are not used",
        ),
        *empty,
        Check(
            metric="frozen.changed",
            op="==",
            threshold=0.0,
            why="the Thinker and the tower are not trained here",
        ),
        Check(
            metric="labels.none",
            op="==",
            threshold=0.0,
            why="a sample without a label teaches nothing, silently",
        ),
        Check(
            metric="labels.truncated",
            op="<=",
            threshold=config.max_truncated,
            why="longer sequences than the context are not what memory was planned for",
        ),
    )
