"""The last stage, `unify`: one Thinker that sees and hears features and tokens, and makes them.

Starts from the Thinker and the rows of `pretrain_tokens` and from the connectors of `instruct`, and
learns both stages' mixtures by turns. Where plain text is read, its states are held to those of the
Thinker that the Talker was made to speak for. The gate is that of both stages, and of the first
ones (`stages/earlier.py`), on the one model; every number stands beside what it was before.
Does not know: any task of its own.
Costs: as many updates as are asked for, each of half of either stage's.
"""

from dataclasses import dataclass, field, replace

import torch

from lumoomni.artifacts import Artifact
from lumoomni.audits.instructed import Asked, Examiner
from lumoomni.audits.making import Measured, known_pictures
from lumoomni.audits.making import measure as measure_made
from lumoomni.audits.text import TEXTS, heldout_losses
from lumoomni.audits.token_lm import TaskScores
from lumoomni.data.conversation import Encoded
from lumoomni.data.shard_set import ShardSet
from lumoomni.errors import InputError
from lumoomni.gates import Check, Metric, Report, bootstrap_ratio
from lumoomni.infer.assemble import load_part, save_part
from lumoomni.infer.draw import Artist
from lumoomni.model.omni import OmniModel
from lumoomni.model.rows import Rows, RowThinker
from lumoomni.model.thinker import Thinker
from lumoomni.pipeline import StageContext
from lumoomni.runtime import atomic_write_text
from lumoomni.stages import earlier, instruct, pretrain_tokens
from lumoomni.stages.align_connector import AlignConnectorConfig
from lumoomni.stages.instruct import InstructConfig
from lumoomni.stages.pretrain_text import PretrainTextConfig
from lumoomni.stages.pretrain_tokens import PretrainTokensConfig
from lumoomni.stages.token_training import (
    Bench,
    batches_of,
    listener_of,
    load_thinker,
    open_bench,
    share_digits,
    text_share,
    training_sets,
)
from lumoomni.train.answers import InstructTask
from lumoomni.train.freeze import fingerprint, freeze
from lumoomni.train.loop import LoopConfig, fit, site_of
from lumoomni.train.optim import OptimConfig
from lumoomni.train.tokens import Hold, TokenTask
from lumoomni.train.turns import ByTurns

BEFORE = ("pretrain_text", "align_connector", "instruct", "pretrain_tokens")
CONNECTORS = ("image_connector", "audio_connector")


@dataclass(frozen=True, kw_only=True)
class UnifyConfig:
    """`omni` and `tokens` say what is learned from, the rates, and what the gates ask; how long and
    in what steps is said here, so that their own `loop` and `optim` mean nothing.

    An answer's token counts `omni_weight` times a picture's: a picture has many more of them.
    """

    omni: InstructConfig
    tokens: PretrainTokensConfig
    text: PretrainTextConfig | None = None
    aligned: AlignConnectorConfig | None = None
    """Whose gates are asked again, besides those of `omni` and `tokens`."""
    train: bool = True
    """Where the Thinker was left as it was (`tokens.routed`, `tokens.thinker_rate` 0) there
    is nothing to train: all is measured on the one model as it is."""
    omni_weight: float = 4.0
    loop: LoopConfig
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        if self.loop.accumulate % 2:
            raise InputError(
                f"loop.accumulate is {self.loop.accumulate}, but half of an update's micro-batches "
                "are features and half tokens; use an even number"
            )
        if not self.train and self.tokens.thinker_rate:
            raise InputError(
                f"train is false, but tokens.thinker_rate is {self.tokens.thinker_rate}: a Thinker "
                "that learned tokens must be trained by turns; set train=true"
            )
        if self.tokens.lora is not None:
            raise InputError("unify trains the Thinker whole; leave tokens.lora out")

    @property
    def half(self) -> LoopConfig:
        """The loop as each of both sees it."""
        return replace(self.loop, accumulate=self.loop.accumulate // 2)


@dataclass(frozen=True)
class One:
    """The one model, seen from both sides: `omni.thinker` is `tokens.thinker`."""

    omni: OmniModel
    tokens: RowThinker


@dataclass(frozen=True)
class Sides:
    """What both sides are measured with."""

    examiner: Examiner
    plain: list[Encoded]
    bench: Bench
    sets: list[ShardSet]


def run(context: StageContext) -> Report:
    """Train, measure all that was measured before, save the whole of what was trained."""
    config: UnifyConfig = context.config
    bench = open_bench(context, replace(config.tokens, loop=config.half))
    model = join(context, config, bench)
    omni = model.omni
    assert omni.vision is not None and omni.audio is not None
    frozen = fingerprint(omni.vision), fingerprint(omni.audio)
    layout = instruct.layout_of(context, omni)
    data, notes = instruct.open_data(context, config.omni, omni, layout)
    plain = instruct.plain_texts(data, layout, TEXTS * config.omni.eval_items, omni.thinker)
    sides = Sides(
        examiner=Examiner(model=omni, layout=layout, data=data),
        plain=plain,
        bench=bench,
        sets=training_sets(context, bench),
    )
    spoken_for = freeze(load_thinker(context, bench))
    assert isinstance(spoken_for, Thinker)
    scores = bench.scores(model.tokens, list(config.tokens.tasks))
    if config.train:
        learn(context, sides, model, spoken_for)
    for module in (omni, model.tokens):
        module.requires_grad_(False).eval()
    if frozen != (fingerprint(omni.vision), fingerprint(omni.audio)):
        raise RuntimeError("a frozen tower changed during training")
    pretrain_tokens.save_both(context, bench, model.tokens)
    for name in CONNECTORS:
        save_part(context.out, name, getattr(omni, name))
    metrics = measure(context, model, sides, spoken_for, scores)
    return Report(
        metrics={**beside(metrics, context.parents), **metrics},
        notes={"abi": bench.uti.space.abi, **notes},
    )


def learn(context: StageContext, sides: Sides, model: One, spoken_for: Thinker) -> None:
    """Both stages' mixtures by turns."""
    config: UnifyConfig = context.config
    bench, omni, examiner = sides.bench, model.omni, sides.examiner
    groups = instruct.groups_of(
        config.half, examiner.layout, examiner.data, context.seed, omni.thinker
    )
    answers = InstructTask(omni, groups, config.omni.hold_weight, spoken_for)
    share_digits(context, bench, model.tokens.rows)
    pretrain_tokens.set_learning(model.tokens, config.tokens)
    tokens = TokenTask(
        model.tokens,
        bench.uti.space,
        batches_of(bench, sides.sets),
        z_loss=config.tokens.z_loss,
        text_weight=config.tokens.text_weight,
        hold=Hold(spoken_for, config.tokens.hold_weight) if config.tokens.hold_weight else None,
    )
    rates = {
        **instruct.rates_of(config.omni, omni),
        "maker.": config.tokens.maker_rate,
        "rows.shared": config.tokens.shared_rate,
        "rows.": config.tokens.rows_rate,
    }
    task = ByTurns(answers, tokens, config.omni_weight)
    fit(task, config.loop, config.optim, site_of(context), rates)
    model.tokens.rows.settle()


def join(context: StageContext, config: UnifyConfig, bench: Bench) -> One:
    """The parts of both stages on the Thinker of the later one."""
    parents = context.parents
    learned = parents["pretrain_tokens"]
    thinker, rows = load_part(learned, "thinker"), load_part(learned, "rows")
    has_maker = "maker.json" in learned.manifest["files"]
    if has_maker != config.tokens.routed:
        raise InputError(
            f"{learned.path} {'has' if has_maker else 'has no'} matrices of its own for new ids, "
            f"but tokens.routed is {config.tokens.routed}; set both stages alike"
        )
    maker = load_part(learned, "maker") if has_maker else None
    assert isinstance(thinker, Thinker) and isinstance(rows, Rows)
    assert maker is None or isinstance(maker, Thinker)
    torch.manual_seed(context.seed)
    omni = OmniModel(
        thinker,
        vision=freeze(load_part(parents["train_vision_encoder"], "vision")),  # type: ignore[arg-type]
        audio=freeze(load_part(parents["train_audio_encoder"], "audio")),  # type: ignore[arg-type]
        **{name: load_part(parents["instruct"], name) for name in CONNECTORS},  # type: ignore[arg-type]
    )
    assert omni.audio_connector is not None and omni.image_connector is not None
    # As in `instruct`: what was fitted to the Thinker's table stays, for the table does.
    if omni.audio_connector.spell is not None:
        freeze(omni.audio_connector.spell)
    table = getattr(omni.image_connector, "symbol_table", None)
    if table is not None:
        table.requires_grad_(False)
    return One(omni, RowThinker(thinker, rows, maker))


def measure(
    context: StageContext,
    model: One,
    sides: Sides,
    spoken_for: Thinker,
    before: dict[str, TaskScores],
) -> dict[str, Metric]:
    """Answers, swaps and speech as `instruct` asks for them; made and read tokens as
    `pretrain_tokens` does."""
    config: UnifyConfig = context.config
    metrics, asked = instruct.measure(config.omni, sides.examiner, context)
    old, new = (heldout_losses(one, sides.plain) for one in (spoken_for, model.omni.thinker))
    metrics |= {"text.loss.before": bootstrap_ratio(*old), "text.loss.after": bootstrap_ratio(*new)}
    metrics["text.loss_ratio"] = bootstrap_ratio(new[0], old[0])
    metrics["text.rows_share"] = text_share(model.tokens, sides.bench.held_text())
    layout, count = sides.examiner.layout, config.omni.eval_items // 2
    if config.text is not None:
        metrics |= earlier.text_again(config.text, model.omni.thinker, layout, context)
    if config.aligned is not None:
        metrics |= earlier.pictures_again(config.aligned, model.omni, layout, context.seed)
    metrics["speech.readback_wer"] = instruct.read_back(context, model.omni, layout, count)
    tasks = list(config.tokens.tasks)
    for name, scores in sides.bench.scores(model.tokens, tasks).items():
        metrics |= scores.metrics()
        metrics[f"tokens.{name}.change"] = pretrain_tokens.change(before[name], scores)
    context.progress.say(f"{context.name}: drawing, listening and reading")
    known = known_pictures(sides.sets)
    artist = Artist(model.tokens, sides.bench.uti)
    listener = listener_of(context, sides.bench)
    made = measure_made(
        artist, tasks, config.tokens.making, context.seed, known, context.progress, listener
    )
    keep(context, sides, asked, made)
    return {**metrics, **made.metrics}


def keep(
    context: StageContext,
    sides: Sides,
    asked: list[Asked],
    made: Measured,
) -> None:
    """Examples of both sides in one file, for the report."""
    pretrain_tokens.keep(context, made)
    path = context.out / "examples.jsonl"
    drawn = path.read_text()
    instruct.write_examples(context, sides.examiner.data, asked)
    atomic_write_text(path, path.read_text() + drawn)


def beside(after: dict[str, Metric], parents: dict[str, Artifact]) -> dict[str, Metric]:
    """What each number was in the stage that measured it first, as `before.NAME`."""
    found: dict[str, Metric] = {}
    for stage in (name for name in BEFORE if name in parents):
        for name, metric in parents[stage].report.metrics.items():
            if name in after and not name.startswith("text.loss"):
                found.setdefault(f"before.{name}", metric)
    return found


def checks(config: UnifyConfig) -> tuple[Check, ...]:
    """The gates of both stages and of the first ones; of the text, the stricter one."""
    joined = [
        *earlier.checks(config.text, config.aligned),
        *instruct.checks(config.omni),
        *pretrain_tokens.checks(config.tokens),
    ]
    kept: dict[tuple[str, str], Check] = {}
    for one in joined:
        key = (one.metric, one.bound)
        other = kept.get(key)
        if other is None or _stricter(one, other):
            kept[key] = one
    return tuple(kept.values())


def _stricter(one: Check, other: Check) -> bool:
    """Whether a check of the same number asks for more, in its own direction."""
    if one.op in ("<", "<="):
        return one.threshold < other.threshold
    return one.threshold > other.threshold
