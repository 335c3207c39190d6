"""Track B's stage 4, `pretrain_tokens`: the Thinker and its rows learn to draw, to sound, to read.

Trains the Thinker's blocks (or adapters on them, or beside them matrices that new ids go
through) and the rows on a mixture of all four ways and text. The gate asks for held-out pictures
and sounds and looks at what comes: everything decodable, attributes right and wrong with another's
prompt, no two alike, no more copies than by chance; reading no worse than before, and text hardly.

Its Thinker is not the one that `instruct` joined to eyes and ears, so the artifact holds the token
space too, and counts as a model of its own.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from lumoomni.artifacts import hash_file
from lumoomni.audits.drawing import Sheet
from lumoomni.audits.making import SPLITS, MakingConfig, Measured, known_pictures, measure
from lumoomni.audits.text import heldout_loss
from lumoomni.audits.token_lm import TaskScores
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.world.reading import read_picture
from lumoomni.errors import InputError
from lumoomni.gates import Check, Metric, Report, bootstrap_ratio, exact
from lumoomni.infer.assemble import load_part, save_part
from lumoomni.infer.draw import Artist
from lumoomni.infer.row_package import save_rows
from lumoomni.media.audio import Audio, save_wav
from lumoomni.media.image import save_png
from lumoomni.media.sheet import sheet
from lumoomni.model.lora import LoraSettings, attach, merge
from lumoomni.model.routed import new_maker
from lumoomni.model.rows import Rows, RowThinker
from lumoomni.model.thinker import Thinker
from lumoomni.pipeline import StageContext
from lumoomni.runtime import atomic_write_text, set_seed
from lumoomni.stages.token_training import (
    Bench,
    TokenTrainingConfig,
    batches_of,
    listener_of,
    load_thinker,
    open_bench,
    share_check,
    share_digits,
    text_share,
    training_sets,
)
from lumoomni.stages.train_rows import PACKAGE, READ, read_checks
from lumoomni.train.freeze import freeze
from lumoomni.train.loop import fit, site_of
from lumoomni.train.tokens import Hold, TokenTask
from lumoomni.uti.space_file import save_space

SHOWN, SOUNDS_KEPT = 30, 4


@dataclass(frozen=True, kw_only=True)
class PretrainTokensConfig(TokenTrainingConfig):
    """Without `lora` the Thinker's blocks are trained whole; adapters are merged in the end.

    With `routed`, new ids and what is said after pictures and sounds go through matrices of their
    own, which start as the Thinker's copies (`model/routed.py`). A `thinker_rate` of 0 then leaves
    the Thinker, and text, to the bit; above 0 it learns too. `making` says how pictures and
    sounds are made when they are judged, and how many.
    """

    lora: LoraSettings | None = None
    routed: bool = False
    thinker_rate: float = 1.0
    rows_rate: float = 1.0
    """Learning rates of the Thinker and of the rows, as shares of `optim`'s."""
    maker_rate: float = 1.0
    """And of the matrices that new ids have, if they are `routed`."""
    z_loss: float = 0.0
    hold_weight: float = 1.0
    """How strongly states of plain text are held to what they were; 0 is not."""
    making: MakingConfig = field(default_factory=MakingConfig)
    min_seen: float = 0.9
    min_unseen: float = 0.8
    min_sound: float = 0.9
    """Pictures and sounds of which everything is right; what the codec alone loses counts."""
    min_codec: float = 0.8
    """What the codec alone must leave right: no model can draw what it loses."""
    min_read: float = 0.9
    """Attributes of held-out pictures and sounds that are told rightly, also where pairs or orders
    are new."""
    min_wins: float = 0.9
    """Held-out samples that another's picture or sound must serve worse."""
    max_text_loss: float = 1.01
    max_read_change: float = 0.0
    """Nats a token that reading may cost more than before, at the interval's upper end."""
    max_pressure: float = 0.02
    max_copied: float = 0.02
    """How much more often than chance a drawn picture may be one of training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.thinker_rate and not self.routed:
            raise InputError(
                "thinker_rate is 0, and nothing but rows would learn; set routed=true, or train "
                "rows with train_rows"
            )
        if self.routed and self.lora is not None:
            raise InputError(
                "routed trains matrices beside the Thinker's and lora trains adapters on them; "
                "leave one of both out"
            )


def run(context: StageContext) -> Report:
    """Train, measure, save `thinker`, `rows`, the rows' package, and what was drawn."""
    config: PretrainTokensConfig = context.config
    bench = open_bench(context, config)
    model = load_model(context, bench)
    text, tasks = bench.held_text(), list(config.tasks)
    before_text, before = heldout_loss(model.thinker, text), bench.scores(model, tasks)
    sets = training_sets(context, bench)
    share_digits(context, bench, model.rows)
    set_seed(context.seed)  # new adapters are drawn
    set_learning(model, config)
    task = task_of(context, bench, model, sets)
    rates = {
        "thinker.": config.thinker_rate,
        "maker.": config.maker_rate,
        "rows.shared": config.shared_rate,
        "rows.": config.rows_rate,
    }
    fit(task, config.loop, config.optim, site_of(context), rates)
    model.rows.settle()
    if config.lora is not None:
        merge(model.thinker)
    model.requires_grad_(False).eval()
    save(context, bench, model)
    after_text, after = heldout_loss(model.thinker, text), bench.scores(model, tasks)
    metrics = {"text.loss.before": before_text, "text.loss.after": after_text}
    metrics["text.loss_ratio"] = exact(after_text.value / before_text.value, n=after_text.n)
    metrics["text.rows_share"] = text_share(model, text)
    for name, scores in after.items():
        metrics |= scores.metrics()
        metrics[f"tokens.{name}.change"] = change(before[name], scores)
    context.progress.say(f"{context.name}: drawing, listening and reading")
    artist = Artist(model, bench.uti)
    known, listener = known_pictures(sets), listener_of(context, bench)
    made = measure(artist, tasks, config.making, context.seed, known, context.progress, listener)
    keep(context, made)
    return Report(metrics={**metrics, **made.metrics}, notes={"abi": bench.uti.space.abi})


def load_model(context: StageContext, bench: Bench) -> RowThinker:
    """The Thinker of `instruct` with the rows of `train_rows`."""
    thinker, rows = load_thinker(context, bench), load_part(context.parents["train_rows"], "rows")
    assert isinstance(rows, Rows)
    maker = new_maker(thinker) if context.config.routed else None
    return RowThinker(thinker, rows, maker).eval()


def task_of(
    context: StageContext, bench: Bench, model: RowThinker, sets: Sequence[ShardSet]
) -> TokenTask:
    """What is learned, with text held to what `instruct`'s Thinker made of it."""
    config: PretrainTokensConfig = context.config
    hold = None
    if config.hold_weight and config.thinker_rate:
        before = freeze(load_thinker(context, bench))
        assert isinstance(before, Thinker)
        hold = Hold(before, config.hold_weight)
    return TokenTask(
        model,
        bench.uti.space,
        batches_of(bench, sets),
        z_loss=config.z_loss,
        text_weight=config.text_weight,
        hold=hold,
    )


def set_learning(model: RowThinker, config: PretrainTokensConfig) -> None:
    """Rows learn, a maker does, and of the Thinker what `let_learn` says."""
    model.requires_grad_(True)
    let_learn(model.thinker, config)


def let_learn(
    thinker: Thinker,
    config: PretrainTokensConfig,
    adapt: Callable[[Thinker, LoraSettings], object] = attach,
) -> None:
    """The Thinker's blocks learn, or adapters on them, or at a rate of 0 nothing; text's tables
    stay."""
    thinker.requires_grad_(config.lora is None and config.thinker_rate > 0)
    if config.lora is not None:
        adapt(thinker, config.lora)
    thinker.token_table.weight.requires_grad_(False)
    if thinker.head_table is not None:
        thinker.head_table.requires_grad_(False)


def save(context: StageContext, bench: Bench, model: RowThinker) -> None:
    """What was trained, and the token space that marks a model of its own."""
    save_both(context, bench, model)
    save_space(context.out, bench.uti.space, {"at": None})  # the manifest has the date


def save_both(context: StageContext, bench: Bench, model: RowThinker) -> None:
    """The Thinker, its rows, perhaps their maker, and the package of these."""
    save_part(context.out, "thinker", model.thinker)
    save_part(context.out, "rows", model.rows)
    if model.maker is not None:
        save_part(context.out, "maker", model.maker)
    package, base = context.out / PACKAGE, hash_file(context.out / "thinker.safetensors")
    named = {"base": base, "base_llm": context.name}
    save_rows(package, model.rows, bench.uti.space, maker=model.maker, **named)


def change(before: TaskScores, after: TaskScores) -> Metric:
    """Nats a token that a task costs more than before, paired by sample."""
    pairs = zip(after.losses["correct"], before.losses["correct"], strict=True)
    return bootstrap_ratio([a - b for a, b in pairs], after.counts)


def keep(context: StageContext, made: Measured) -> None:
    """Pictures as one sheet and one by one, sounds, and what was read off them, for the report."""
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        drawn = made.sheets.get(f"image.{split}")
        if drawn is not None:
            pictures = [np.asarray(one.made) for one in drawn.made[:SHOWN]]
            save_png(context.out / f"drawn_{split}.png", sheet(pictures, drawn.prompts[:SHOWN]))
            rows += keep_pictures(context, split, drawn)
        heard = made.sheets.get(f"audio.{split}")
        for number, one in enumerate(() if heard is None else heard.made[:SOUNDS_KEPT]):
            assert isinstance(one.made, Audio)
            save_wav(context.out / f"sound_{split}_{number}.wav", one.made)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    atomic_write_text(context.out / "examples.jsonl", lines)


def keep_pictures(context: StageContext, split: str, drawn: Sheet) -> list[dict[str, Any]]:
    """A few pictures as files, with what is read off them in words."""
    rows = []
    for number, (one, score) in enumerate(zip(drawn.made[:9], drawn.scores, strict=False)):
        picture = np.asarray(one.made)
        name = f"pictures/{split}_{number}.png"
        (context.out / "pictures").mkdir(exist_ok=True)
        save_png(context.out / name, picture)
        things = [asdict(seen) for seen in read_picture(picture).things]
        said = "; ".join(f"{t['size']} {t['colour']} {t['shape']}" for t in things)
        asked = str(one.asked)
        rows.append(
            {
                "task": "draw",
                "split": split,
                "index": number,
                "question": "Draw.",
                "wanted": asked,
                "said": said,
                "right": score.whole,
                "picture": name,
            }
        )
    return rows


def checks(config: PretrainTokensConfig) -> tuple[Check, ...]:
    """The gate."""
    found = [
        Check(
            metric="text.loss_ratio",
            op="<=",
            threshold=config.max_text_loss,
            min_n=20,
            why="learning tokens must not cost the text",
        ),
        share_check(),
    ]
    for task in config.tasks:
        if task in READ:
            found += [*read_checks(task, config.min_wins), *told_checks(task, config.min_read)]
            found.append(
                Check(
                    metric=f"tokens.{task}.change",
                    op="<=",
                    threshold=config.max_read_change,
                    bound="high",
                    min_n=20,
                    why="reading must not be worse than before",
                )
            )
    made = {"t2i": drawn_checks, "t2a": sounded_checks}
    for task in (one for one in made if one in config.tasks):
        found += made[task](config)
    return (*found, *form_checks(config))


def told_checks(task: str, least: float) -> list[Check]:
    """What is told of held-out media."""
    whys = {"seen": "pictures and sounds", "unseen": "pairs and orders that are new"}
    return [
        Check(
            metric=f"read.{task}.{split}.attributes",
            op=">=",
            threshold=least,
            min_n=20,
            why=f"held-out {why} must be described rightly",
        )
        for split, why in whys.items()
    ]


def drawn_checks(config: PretrainTokensConfig) -> list[Check]:
    """Pictures: right ones, from their prompts, of many kinds, and none from memory."""
    check = partial(Check, min_n=20)
    least = {"seen": config.min_seen, "unseen": config.min_unseen}
    found = made_checks("draw", least, config.min_codec)
    return [
        *found,
        check(
            metric="draw.diversity",
            op=">",
            threshold=0.0,
            bound="low",
            why="two pictures of one prompt must not be the same",
        ),
        check(
            metric="draw.copied",
            op="<=",
            threshold=config.max_copied,
            bound="low",
            why="pictures must not be training ones more often than new ones are by chance",
        ),
    ]


def sounded_checks(config: PretrainTokensConfig) -> list[Check]:
    """Sounds: right ones, from their prompts."""
    return made_checks("sound", {"seen": config.min_sound}, config.min_codec)


def made_checks(name: str, least: dict[str, float], codec: float) -> list[Check]:
    """What must be right, and must not be without the right prompt."""
    found = []
    for split, share in least.items():
        found.append(
            Check(
                metric=f"{name}.codec_whole.{split}",
                op=">=",
                threshold=codec,
                min_n=20,
                why="what the codec itself loses no model can draw or sound",
            )
        )
        found.append(
            Check(
                metric=f"{name}.whole.{split}",
                op=">=",
                threshold=share,
                min_n=20,
                why="all that was asked for must be there",
            )
        )
        for other in ("swapped", "empty"):
            found.append(
                Check(
                    metric=f"{name}.over_{other}.{split}",
                    op=">",
                    threshold=0.0,
                    bound="low",
                    min_n=20,
                    why=f"with {'no' if other == 'empty' else 'another'} prompt it must be worse",
                )
            )
    return found


def form_checks(config: PretrainTokensConfig) -> list[Check]:
    """All that is made."""
    return [
        Check(
            metric="made.decodable",
            op=">=",
            threshold=1.0,
            min_n=20,
            why="everything that is made must decode, and whole",
        ),
        Check(
            metric="made.pressure",
            op="<=",
            threshold=config.max_pressure,
            min_n=20,
            why="a model that often wants what may not follow does not know where it is",
        ),
    ]
