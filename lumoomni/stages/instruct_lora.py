"""Track A's second stage, `instruct`: connector and LoRA adapters learn to answer about pictures.

Trains both on conversations with pictures, every answer of a conversation at once; the Thinker's
own weights and the tower stay as they were, bit for bit. Saves the connector and the adapters
alone. Does not know: how adapters are made or read (`model/lora.py`).
Costs: gradients pass through the whole Thinker; with `loop.checkpointing` one more forward of it,
for the memory of one block. The gate: the right picture must help, and text must not get worse.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace

import torch
from torch import Tensor, nn

from lumoomni.audits.ablation import ablate, label_facts
from lumoomni.audits.golden import Golden
from lumoomni.audits.placement import check_placement
from lumoomni.audits.text import heldout_loss
from lumoomni.codecs.text import TextCodec
from lumoomni.data.conversation import (
    Batch,
    Encoded,
    Layout,
    picture_turns,
    text_turns,
)
from lumoomni.data.feeding import Feed, shorten
from lumoomni.data.sample import PictureItem, PictureSource, take, take_shown
from lumoomni.data.sources import open_pictures, open_text
from lumoomni.errors import InputError
from lumoomni.gates import Check, Metric, Report, exact
from lumoomni.infer.assemble import (
    SETTINGS,
    TOKENIZER,
    base_hash,
    holder,
    load_part,
    load_settings,
    preparer,
    save_part,
)
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.lora import Attached, LoraSettings, attach, bare, save_adapter
from lumoomni.model.omni import OmniInputs, OmniModel
from lumoomni.model.perceiver import PerceiverConnector
from lumoomni.model.siglip import SiglipTower
from lumoomni.model.thinker import Thinker
from lumoomni.model.vision import VisionTower
from lumoomni.pipeline import StageContext
from lumoomni.stages.align_connector import AlignConnectorConfig, new_connector
from lumoomni.stages.picture_training import (
    PictureTrainingConfig,
    encode,
    open_feed,
    picture_checks,
    template_of,
    text_facts,
)
from lumoomni.train.align import seen
from lumoomni.train.devices import resident
from lumoomni.train.eyes import Eyes
from lumoomni.train.freeze import fingerprint, freeze
from lumoomni.train.loop import StepLoss, Watch, fit, site_of
from lumoomni.train.loss import lm_loss, predicting

ALIGNED = "align_connector"


@dataclass(frozen=True, kw_only=True)
class FreshConnector:
    """The shape of a perceiver that no stage aligned before; widths come from the parts."""

    latents: int = 64
    width: int = 512
    layers: int = 2
    heads: int = 8
    mlp_ratio: int = 4
    vision_ln: bool = False
    waves: float = 0.0


@dataclass(frozen=True, kw_only=True)
class InstructLoraConfig(PictureTrainingConfig):
    """`optim.lr` drives the connector, `lora_rate` times it the adapters. Empty `data`: what the
    connector was aligned on. Conversations without a picture are learned as text."""

    text: str = ""
    """Held-out text whose loss is bounded, as jsonl:FILE or txt:FILE; empty: what is said in the
    conversations, without their pictures."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    lora_rate: float = 0.5
    fresh: FreshConnector | None = None
    """Start with a connector from nothing, in a recipe without `align_connector`."""
    eval_batch: int = 16
    golden_times: int = 4
    context: int = 2048
    max_text_loss: float = 1.05
    """Loss on held-out text, as a multiple of the Thinker's own before."""

    def __post_init__(self) -> None:
        if self.lora_rate <= 0 or self.max_text_loss <= 0 or self.eval_batch < 1:
            raise ValueError(
                "lora_rate and max_text_loss must be positive and eval_batch at least 1, got "
                f"{self.lora_rate}, {self.max_text_loss} and {self.eval_batch}"
            )


class InstructLoraTask:
    """Answers to conversations with pictures, through a Thinker with adapters."""

    def __init__(self, model: OmniModel, feed: Feed, eyes: Eyes) -> None:
        assert isinstance(model.image_connector, PerceiverConnector)
        self.modules: dict[str, nn.Module] = {
            "image_connector": model.image_connector,
            "thinker": model.thinker,
        }
        self.helpers = (model,)
        self._connector = model.image_connector
        self._model, self._feed, self._eyes = model, feed, eyes

    def batch(self, index: int) -> Batch:
        return self._feed.batch(index).batch

    def weight(self, batch: Batch) -> float:
        return batch.weight()

    def loss(self, batch: Batch) -> StepLoss:
        thinker = self._model.thinker
        inputs = OmniInputs(
            ids=batch.ids,
            lengths=batch.lengths,
            documents=batch.documents,
            numbers=batch.numbers,
        )
        spec = AttentionSpec(lengths=batch.lengths, documents=batch.documents)
        hidden = thinker(
            self._model.embed(inputs, self._images(batch)),
            attention=spec,
            asked=predicting(batch.labels),
        ).hidden
        return StepLoss(lm_loss(hidden, batch.labels, thinker.head_weight()).total, {})

    def _images(self, batch: Batch) -> Tensor | None:
        """What the Thinker is given for the pictures [I, L, D], if there are any."""
        if batch.features is None and batch.pixels is None:
            return None
        return self._connector.say(self._connector(seen(self._eyes, batch)))


@dataclass(frozen=True)
class Bench:
    """The model before training, how its sequences are laid out, and what it learns from."""

    model: OmniModel
    layout: Layout
    source: PictureSource
    base: str
    """The hash that names the Thinker."""


def run(context: StageContext) -> Report:
    """Train, measure, save `image_connector` and `thinker_adapter`."""
    config: InstructLoraConfig = context.config
    bench = prepare(context, config)
    model = bench.model
    text = plain_items(context, config, bench)
    site = site_of(context)
    with resident((model.thinker,), site.device):
        before = heldout_loss(model.thinker, text, batch=config.eval_batch)
    frozen = _fingerprints(model)
    torch.manual_seed(context.seed)
    attached = attach(model.thinker, config.lora)
    task = new_task(context, config, bench)
    check_placement(model, bench.layout.text_codec, task.batch(0), context.name)
    golden = Golden(
        model=model,
        layout=bench.layout,
        items=take_shown(bench.source, "seen", config.golden),
        request=config.prompt,
        folder=site.work,
    )
    watch = Watch(max(1, config.loop.steps // config.golden_times), golden.look)
    watched = replace(site, watch=watch if config.golden else None)
    fit(task, config.loop, config.optim, watched, {"thinker.": config.lora_rate})
    model.eval()
    if config.golden:
        golden.keep(context.out)
    assert model.image_connector is not None
    save_part(context.out, "image_connector", model.image_connector)
    save_adapter(context.out, model.thinker, config.lora, bench.base)
    with resident((model,), site.device):
        metrics = measure(bench, config, context.seed)
        after = heldout_loss(model.thinker, text, batch=config.eval_batch)
    metrics |= {"text.loss.before": before, "text.loss.after": after}
    metrics["text.loss_ratio"] = exact(after.value / before.value, n=after.n)
    changed = sum(a != b for a, b in zip(frozen, _fingerprints(model), strict=True))
    metrics["frozen.changed"] = exact(float(changed), n=len(frozen))
    return Report(metrics=metrics, notes=_notes(attached))


def new_task(context: StageContext, config: InstructLoraConfig, bench: Bench) -> InstructLoraTask:
    """What is trained, and its batches."""
    tower = bench.model.vision
    assert tower is not None
    eyes = Eyes(tower=tower, at_once=config.tower_batch, bf16=config.loop.bf16)
    feed = open_feed(context, config, bench.source, bench.layout, eyes)
    return InstructLoraTask(bench.model, feed, eyes)


def _fingerprints(model: OmniModel) -> tuple[str, str]:
    """Of the Thinker's own weights, whatever adapters are on them, and of the tower's."""
    assert model.vision is not None
    with bare(model.thinker) as thinker:
        return fingerprint(thinker), fingerprint(model.vision)


def _notes(attached: Attached) -> dict[str, str]:
    said = f"{len(attached.names)} matrices"
    if attached.experts_left_out:
        said += f"; {attached.experts_left_out} experts are stacked tensors and have none"
    return {"adapters": said}


def prepare(context: StageContext, config: InstructLoraConfig) -> Bench:
    """Everything in its place. Raises InputError when the connector is there twice or not at all,
    and when no data is named."""
    parents = context.parents
    aligned = parents.get(ALIGNED)
    if (aligned is None) == (config.fresh is None):
        raise InputError(
            f"{context.name} takes one connector, and there are "
            + ("none: set fresh, or build on" if aligned is None else "two: unset fresh, or drop")
            + f" {ALIGNED}"
        )
    data = config.data or ("" if aligned is None else str(aligned.config["data"]))
    if not data:
        raise InputError(f"{context.name} has no data; add data=llava:FILE or chat=llava:FILE")
    codec = TextCodec.load(holder(parents, TOKENIZER).file(TOKENIZER))
    settings = load_settings(holder(parents, SETTINGS))
    owner = holder(parents, "thinker.json")
    thinker = load_part(owner, "thinker")
    vision = load_part(holder(parents, "vision.json"), "vision")
    assert isinstance(thinker, Thinker) and isinstance(vision, VisionTower | SiglipTower)
    freeze(thinker)
    freeze(vision)
    torch.manual_seed(context.seed)
    if aligned is not None:
        connector = load_part(aligned, "image_connector")
    else:
        connector = new_connector(thinker, vision, codec, as_align(config))
    assert isinstance(connector, PerceiverConnector)
    if connector.symbol_table is not None:
        connector.symbol_table.requires_grad_(False)  # the Thinker's own table is frozen too
    layout = Layout(
        text_codec=codec,
        template=template_of(config, settings, context.name),
        mel=settings.mel,
        image_positions=connector.config.positions,
        prepare=preparer(vision),
    )
    pixels = vision.config.image_size if isinstance(vision, VisionTower) else None
    model = OmniModel(thinker, vision=vision, image_connector=connector)
    source = open_pictures(data, context.seed, pixels, takes_text=True)
    return Bench(model, layout, source, base_hash(owner))


def as_align(config: InstructLoraConfig) -> AlignConnectorConfig:
    """The connector of `fresh`, with the settings that both stages have."""
    both = {one.name: getattr(config, one.name) for one in fields(PictureTrainingConfig)}
    shape = {} if config.fresh is None else asdict(config.fresh)
    return AlignConnectorConfig(**both, **shape)


def plain_items(context: StageContext, config: InstructLoraConfig, bench: Bench) -> list[Encoded]:
    """Held-out text: the source's that was named, or what the conversations say."""
    if config.text:
        source = open_text(config.text, context.seed)
        said = [text_turns(item) for item in take(source, "seen", config.eval_items)]
        return [bench.layout.encode(turns) for turns in said]
    items = take(bench.source, "seen", config.eval_items)
    found = []
    for item in items:
        turns = picture_turns(item, config.prompt)
        found.append(bench.layout.encode(tuple(replace(t, images=(), places=()) for t in turns)))
    return found


def measure(bench: Bench, config: InstructLoraConfig, seed: int) -> dict[str, Metric]:
    """The ablation on held-out conversations, and labels."""
    items = take_shown(bench.source, "seen", config.eval_items)
    encoded = [encode(bench.layout, item, config.prompt) for item in items]
    names = lenders(items)
    if len(set(names)) < 2:
        raise InputError(
            f"all {len(items)} held-out conversations with pictures are about one picture or say "
            "the same, so none can lend another its picture; give more data"
        )
    shown = [shorten(made, config.context) for made in encoded]
    found = ablate(bench.model, shown, names, seed=seed, batch=config.eval_batch)
    train = take(bench.source, "train", config.eval_items)
    learned = [encode(bench.layout, item, config.prompt) for item in train]
    labels = label_facts(learned + encoded, config.context)
    return {**found.metrics(), **labels, **text_facts(bench.source)}


def lenders(items: Sequence[PictureItem]) -> list[str]:
    """A name for each item; items that share a picture or a last answer have one name.

    Several conversations about one picture, as in LLaVA-Instruct, must not lend it to each other.
    """
    name: list[int] = list(range(len(items)))
    first: dict[tuple[str, str], int] = {}
    for i, item in enumerate(items):
        shown = [hashlib.sha256(x.tobytes()).hexdigest() for x in item.pictures]
        for key in (*(("picture", one) for one in shown), ("answer", item.caption)):
            other = name[first.setdefault(key, i)]
            mine = name[i]
            name = [other if n == mine else n for n in name]
    return [str(n) for n in name]


def checks(config: InstructLoraConfig) -> tuple[Check, ...]:
    """The gate: as `align_connector`'s, and a bound on what text may lose."""
    text = Check(
        metric="text.loss_ratio",
        op="<=",
        threshold=config.max_text_loss,
        min_n=min(100, config.eval_items),
        why="learning to answer about pictures must not cost the text",
    )
    return (*picture_checks(config), text)
