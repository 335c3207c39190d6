"""Track A's first stage, `align_connector`: a frozen Thinker learns nothing, it is spoken to.

Trains the perceiver connector alone, on pictures with captions: first to say captions in the
Thinker's own embeddings (`train/readout.py`), then also by how well the frozen Thinker describes
the picture. The gate: the right picture must help more than another's, and another's more than
none; the Thinker and the tower are as they were, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lumoomni.audits.ablation import Ablation, ablate, by_length, label_facts
from lumoomni.audits.golden import Golden
from lumoomni.audits.placement import check_placement
from lumoomni.audits.text import share_right
from lumoomni.codecs.text import TextCodec
from lumoomni.data.conversation import Encoded, Layout
from lumoomni.data.feeding import shorten
from lumoomni.data.sample import PictureItem, PictureSource, take
from lumoomni.data.sources import open_pictures
from lumoomni.data.world.scene import draw, twin, twin_kinds
from lumoomni.gates import Check, Metric, Report, exact
from lumoomni.infer.assemble import (
    SETTINGS,
    TOKENIZER,
    holder,
    load_part,
    load_settings,
    preparer,
    save_part,
)
from lumoomni.model.omni import OmniModel, device_of
from lumoomni.model.perceiver import PerceiverConnector, PerceiverConnectorConfig
from lumoomni.model.siglip import SiglipTower, SiglipTowerConfig
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.model.vision import VisionTower, VisionTowerConfig
from lumoomni.pipeline import StageContext
from lumoomni.stages.picture_training import (
    PictureTrainingConfig,
    encode,
    open_feed,
    picture_checks,
    template_of,
    text_facts,
)
from lumoomni.train.align import AlignObjective, AlignTask
from lumoomni.train.devices import resident
from lumoomni.train.eyes import Eyes
from lumoomni.train.freeze import fingerprint, freeze
from lumoomni.train.loop import FitSite, Watch, fit, site_of
from lumoomni.train.readout import ReadoutConfig, read_ids
from lumoomni.uti.sequence import SILENCE

TWINS = ("colour", "shape", "size")


@dataclass(frozen=True, kw_only=True)
class AlignConnectorConfig(PictureTrainingConfig):
    """The perceiver's shape, without the widths, which come from the parts."""

    data: str = "world"
    latents: int = 64
    width: int = 512
    layers: int = 2
    heads: int = 8
    mlp_ratio: int = 4
    vision_ln: bool = False
    waves: float = 0.0
    spell: bool = False
    """Say each position as the likeliest of the Thinker's symbols (`readout` needs it)."""
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    readout_weight: float = 0.0
    thinker_from: float = 0.0
    """Share of the run after which the Thinker's own loss counts too; the part before it costs no
    forward of the Thinker."""
    length_edges: tuple[int, int] = (10, 20)
    """Supervised tokens up to which an answer is short, and medium."""

    def __post_init__(self) -> None:
        if self.readout_weight < 0 or not 0 <= self.thinker_from <= 1:
            raise ValueError(
                f"readout_weight must be at least 0 and thinker_from a share, got "
                f"{self.readout_weight} and {self.thinker_from}"
            )
        if (self.readout_weight > 0) > self.spell:
            raise ValueError("readout_weight needs spell=true: there are no symbols to choose from")
        if self.thinker_from > 0 and not self.readout_weight:
            raise ValueError("before thinker_from nothing would be learned; set readout_weight")


def connector_shape(
    thinker: ThinkerConfig,
    vision: VisionTowerConfig | SiglipTowerConfig,
    config: AlignConnectorConfig,
    nothing: int,
) -> PerceiverConnectorConfig:
    """The perceiver between two parts; `nothing` is the id that stands for silence."""
    return PerceiverConnectorConfig(
        source_width=vision.width,
        target_width=thinker.width,
        latents=config.latents,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        mlp_ratio=config.mlp_ratio,
        source_norm=config.vision_ln,
        waves=config.waves,
        symbols=thinker.vocab_size if config.spell else 0,
        nothing=nothing,
    )


def new_connector(
    thinker: Thinker,
    vision: VisionTower | SiglipTower,
    codec: TextCodec,
    config: AlignConnectorConfig,
) -> PerceiverConnector:
    """A fresh perceiver; with `spell`, its symbols are the Thinker's."""
    nothing = codec.special(SILENCE) if config.spell else 0
    connector = PerceiverConnector(connector_shape(thinker.config, vision.config, config, nothing))
    if connector.symbol_table is not None:
        connector.take_symbols(thinker.token_table.weight.detach())
        connector.symbol_table.requires_grad_(False)
    return connector


def run(context: StageContext) -> Report:
    """Train, measure, save `image_connector`."""
    connector, metrics = train(context, context.config, site_of(context), context.out)
    save_part(context.out, "image_connector", connector)
    return Report(metrics=metrics)


def train(
    context: StageContext, config: AlignConnectorConfig, site: FitSite, out: Path
) -> tuple[PerceiverConnector, dict[str, Metric]]:
    """One connector from nothing, and its measures; the same samples in the same order for all.

    The golden set goes to `out`.
    """
    parents = context.parents
    codec = TextCodec.load(holder(parents, TOKENIZER).file(TOKENIZER))
    settings = load_settings(holder(parents, SETTINGS))
    thinker = load_part(holder(parents, "thinker.json"), "thinker")
    vision = load_part(holder(parents, "vision.json"), "vision")
    assert isinstance(thinker, Thinker) and isinstance(vision, VisionTower | SiglipTower)
    freeze(thinker)
    freeze(vision)
    before = fingerprint(thinker), fingerprint(vision)
    torch.manual_seed(context.seed)
    connector = new_connector(thinker, vision, codec, config)
    model = OmniModel(thinker, vision=vision, image_connector=connector)
    layout = Layout(
        text_codec=codec,
        template=template_of(config, settings, context.name),
        mel=settings.mel,
        image_positions=connector.config.positions,
        prepare=preparer(vision),
    )
    pixels = vision.config.image_size if isinstance(vision, VisionTower) else None
    source = open_pictures(config.data, context.seed, pixels)
    golden = Golden(
        model=model,
        layout=layout,
        items=take(source, "seen", config.golden),
        request=config.prompt,
        folder=site.work,
    )
    watch = Watch(max(1, config.loop.steps // config.golden_times), golden.look)
    eyes = Eyes(tower=vision, at_once=config.tower_batch, bf16=config.loop.bf16)
    feed = open_feed(context, config, source, layout, eyes)
    aim = AlignObjective(
        readout=config.readout,
        readout_weight=config.readout_weight,
        thinker_from=config.thinker_from,
        batches=config.loop.steps * config.loop.accumulate,
    )
    task = AlignTask(model, feed, eyes, codec, aim)
    check_placement(model, codec, feed.batch(0).batch, context.name)
    fit(task, config.loop, config.optim, replace(site, watch=watch if config.golden else None))
    model.eval()
    if config.golden:
        golden.keep(out)
    with resident((model,), site.device):
        metrics = measure(model, source, layout, config, context.seed)
    after = fingerprint(thinker), fingerprint(vision)
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    metrics["frozen.changed"] = exact(float(changed), n=len(before))
    return connector, metrics


def measure(
    model: OmniModel,
    source: PictureSource,
    layout: Layout,
    config: AlignConnectorConfig,
    seed: int,
) -> dict[str, Metric]:
    """The ablation on held-out captions, labels, losses by length, and captions read rightly."""
    items = take(source, "seen", config.eval_items)
    encoded = [encode(layout, item, config.prompt) for item in items]
    shown = [shorten(made, config.context) for made in encoded]
    found = ablation_of(model, items, shown, layout, config, seed)
    metrics = {**found.metrics(), **by_length(found, config.length_edges)}
    train = [
        encode(layout, item, config.prompt) for item in take(source, "train", config.eval_items)
    ]
    metrics |= {**label_facts(train + encoded, config.context), **text_facts(source)}
    if config.readout_weight:
        splits = ("seen", "unseen") if config.data == "world" else ("seen",)
        for split in splits:
            name = "readout.right" + ("" if split == "seen" else ".unseen")
            chosen = take(source, split, config.eval_items)
            metrics[name] = share_right(read_rightly(model, chosen, layout.text_codec))
    return metrics


def ablation_of(
    model: OmniModel,
    items: Sequence[PictureItem],
    encoded: Sequence[Encoded],
    layout: Layout,
    config: AlignConnectorConfig,
    seed: int,
) -> Ablation:
    """All conditions; the world's pictures also with one attribute changed."""
    twins: list[Encoded] | None = []
    for index, item in enumerate(items):
        if item.scene is None:
            twins = None
            break
        kinds = [kind for kind in twin_kinds(item.scene) if kind in TWINS]
        kind = TWINS[index % len(TWINS)]
        other = twin(item.scene, index, kind if kind in kinds else kinds[0])
        changed = PictureItem(draw(other, item.image.shape[0]), item.caption, None, item.name)
        twins.append(encode(layout, changed, config.prompt))
    names = [item.caption for item in items]
    return ablate(model, encoded, names, twins=twins, seed=seed)


@torch.no_grad()
def read_rightly(model: OmniModel, items: Sequence[PictureItem], codec: TextCodec) -> list[bool]:
    """Whether the connector's positions alone spell what each picture tells."""
    assert model.vision is not None and isinstance(model.image_connector, PerceiverConnector)
    right, prepare, device = [], preparer(model.vision), device_of(model)
    for first in range(0, len(items), 100):
        part = items[first : first + 100]
        patches = model.vision(prepare([item.image for item in part]).to(device)).patches
        said = read_ids(model.image_connector, model.image_connector(patches))
        wanted = [item.told or item.caption for item in part]
        right += [codec.decode(s).strip() == w for s, w in zip(said, wanted, strict=True)]
    return right


def checks(config: AlignConnectorConfig) -> tuple[Check, ...]:
    """The gate."""
    return picture_checks(config)
