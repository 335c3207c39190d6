"""Track B's stage 3, `train_rows`: a frozen Thinker learns the new symbols, by their rows alone.

Rows start where the codebooks lie and learn to be read (pictures and sounds to text); with a share
of the other way also to be said. The gate: better than mere frequencies, worse with another's
picture or sound, and the base, its text logits and its text untouched to the bit.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch

from lumoomni.gates import Check, Report, exact
from lumoomni.infer.assemble import base_hash, save_part
from lumoomni.infer.row_package import save_rows
from lumoomni.model.rows import Rows, RowThinker, start_from_text, start_from_vectors
from lumoomni.model.thinker import Thinker
from lumoomni.pipeline import StageContext
from lumoomni.stages.token_training import (
    Bench,
    TokenTrainingConfig,
    batches_of,
    codebooks,
    load_thinker,
    open_bench,
    rows_config,
    share_check,
    share_digits,
    text_bits,
    text_share,
    training_sets,
)
from lumoomni.train.freeze import fingerprint, freeze
from lumoomni.train.loop import fit, site_of
from lumoomni.train.optim import OptimConfig
from lumoomni.train.tokens import TokenTask

PACKAGE = "package"
READ = ("i2t", "a2t")


@dataclass(frozen=True, kw_only=True)
class TrainRowsConfig(TokenTrainingConfig):
    """`start_rows` says where rows begin: at the codebooks' vectors, or all at the mean of text.

    Raises InputError for an optimizer that decays rows: those that a batch has not would shrink.
    """

    start_rows: Literal["codebook", "text"] = "codebook"
    start_share: float = 1.0
    """How far codes lie from their mean, beside what text rows do."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-2, weight_decay=0.0))
    z_loss: float = 0.0
    min_wins: float = 0.6
    """Held-out samples that another's picture or sound must serve worse."""
    max_text_share: float = 0.05
    """Probability that the new rows may take from text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optim.weight_decay:
            raise ValueError(
                f"weight_decay is {self.optim.weight_decay}, but rows that a batch does not have "
                "would shrink; set it to 0"
            )


def run(context: StageContext) -> Report:
    """Train the rows, measure, save the part `rows` and the package of them."""
    config: TrainRowsConfig = context.config
    bench = open_bench(context, config)
    plain = load_thinker(context, bench)
    thinker = load_thinker(context, bench)
    freeze(thinker)
    before = fingerprint(thinker)
    rows = new_rows(context, bench, thinker)
    model = RowThinker(thinker, rows)
    task = TokenTask(
        model,
        bench.uti.space,
        batches_of(bench, training_sets(context, bench)),
        z_loss=config.z_loss,
        text_weight=config.text_weight,
    )
    fit(task, config.loop, config.optim, site_of(context), {"rows.shared": config.shared_rate})
    rows.settle()
    rows.eval()
    text = bench.held_text()
    metrics = {}
    for scores in bench.scores(model, list(config.tasks)).values():
        metrics |= scores.metrics()
    metrics["text.same_bits"] = text_bits(plain, model, text)
    metrics["text.rows_share"] = text_share(model, text)
    metrics["base.changed"] = exact(float(fingerprint(thinker) != before))
    save_part(context.out, "rows", rows)
    owner = context.parents["instruct"]
    facts = save_rows(
        context.out / PACKAGE, rows, bench.uti.space, base=base_hash(owner), base_llm=owner.kind
    )
    return Report(metrics=metrics, notes={"abi": facts.abi, "base": facts.base})


def new_rows(context: StageContext, bench: Bench, thinker: Thinker) -> Rows:
    """Untrained rows. Those of markers, and of codecs without vectors, start from text."""
    config: TrainRowsConfig = context.config
    torch.manual_seed(context.seed)
    rows = Rows(rows_config(thinker, bench))
    start_from_text(rows, thinker, context.seed)
    if config.start_rows == "codebook":
        books = codebooks(context.parents["build_token_space"], bench)
        for number, (place, vectors) in enumerate(books.items()):
            seed = context.seed + number
            start_from_vectors(rows, thinker, place, vectors, seed, config.start_share)
    share_digits(context, bench, rows, trained=False)
    return rows


def checks(config: TrainRowsConfig) -> tuple[Check, ...]:
    """The gate."""
    found = [
        Check(
            metric="base.changed",
            op="==",
            threshold=0.0,
            why="only the new rows are trained here",
        ),
        Check(
            metric="text.same_bits",
            op=">=",
            threshold=1.0,
            min_n=1000,
            why="what the base says of text must not change by a bit",
        ),
        share_check(config.max_text_share),
    ]
    for task in config.tasks:
        found.append(
            Check(
                metric=f"tokens.{task}.loss",
                op="<",
                threshold=1.0,
                times=f"tokens.{task}.unigram",
                min_n=20,
                why="rows must know more than how frequent each symbol is",
            )
        )
        if task in READ:
            found += read_checks(task, config.min_wins)
    return tuple(found)


def read_checks(task: str, min_wins: float) -> list[Check]:
    """Whether what is shown is used."""
    return [
        Check(
            metric=f"tokens.{task}.swapped_over_correct",
            op=">",
            threshold=0.0,
            bound="low",
            min_n=20,
            why="another's picture or sound must serve worse than the right one",
        ),
        Check(
            metric=f"tokens.{task}.wins_over_swapped",
            op=">=",
            threshold=min_wins,
            min_n=20,
            why="not a few samples alone may need what is shown",
        ),
    ]
