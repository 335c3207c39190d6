"""A real batch of shards through a Thinker: labels in every sample, a finite loss, gradients.

Knows: the loader, and a tiny random Thinker with a row for every id of the space, or a given one
with new rows behind its table. Does not know: thresholds. Costs: a forward and a backward.
"""

import torch
from torch import Tensor, nn

from lumoomni.data.conversation import Batch
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.token_loader import LoaderConfig, Share, TokenLoader
from lumoomni.errors import InputError
from lumoomni.gates import Metric, exact, wilson
from lumoomni.ids import IGNORE
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.rows import Rows, RowsConfig, RowThinker, start_from_text
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.train.loss import LossSum, lm_loss
from lumoomni.train.row_loss import row_loss
from lumoomni.uti.space import TokenSpace
from lumoomni.uti.tasks import TASKS


def smoke_metrics(
    shards: ShardSet, *, split: str, context: int, size: int, seed: int, thinker: Thinker | None
) -> dict[str, Metric]:
    """One batch of `size` samples, the tasks of a split in equal shares.

    Raises InputError where the loader finds nothing that fits.
    """
    room = context if thinker is None else min(context, thinker.config.max_positions)
    config = LoaderConfig(batch_size=size, context=room, seed=seed)
    shares = [Share(shards=shards, task=task, split=split) for task in tasks_of(shards, split)]
    loader = TokenLoader(shares, config)
    batch = loader.batch(0)
    loss, learned = _loss(batch, shards.space, thinker, room, seed)
    loss.mean().backward()
    reached = [p.grad is not None and bool(p.grad.isfinite().all() & (p.grad != 0).any())
               for p in learned]  # fmt: skip
    labels = (batch.labels[:, 1:] != IGNORE).sum(1)
    return {
        "dataset.loader_loss": exact(float(loss.mean().detach()), loss.count),
        "dataset.loader_labels": exact(int(labels.min()), len(labels)),
        "dataset.loader_gradient": wilson(sum(reached), len(reached)),
        "dataset.loader_resumes": _resumes(loader, batch),
    }


def tasks_of(shards: ShardSet, split: str) -> list[str]:
    """The tasks that a split has records of, in the order of TASKS. Raises InputError for none."""
    found = [
        task for task in TASKS if split in shards.counts and shards.counts[split].tasks.get(task)
    ]
    if not found:
        raise InputError(f"{shards.path} has no samples in {split!r}; tokenize more")
    return found


def tiny_thinker(space: TokenSpace, positions: int, seed: int) -> Thinker:
    """A random Thinker of two narrow layers with a row for every id."""
    torch.manual_seed(seed)
    return Thinker(
        ThinkerConfig(
            vocab_size=space.size,
            width=32,
            layers=2,
            heads=2,
            kv_heads=1,
            head_width=16,
            ffn_width=64,
            max_positions=positions,
        )
    )


def _loss(
    batch: Batch, space: TokenSpace, thinker: Thinker | None, room: int, seed: int
) -> tuple[LossSum, list[nn.Parameter]]:
    """The batch's loss, and the parameters that it must reach: all of a tiny Thinker's, or the new
    rows of a given one, which stays as it is."""
    spec = AttentionSpec(lengths=batch.lengths)
    if thinker is None:
        tiny = tiny_thinker(space, room, seed)
        hidden = tiny(tiny.embed(batch.ids), attention=spec).hidden
        return lm_loss(hidden, batch.labels, tiny.head_weight()), list(tiny.parameters())
    shape = thinker.config
    rows = Rows(
        RowsConfig(
            start=shape.vocab_size,
            count=len(space.new_rows),
            width=shape.width,
            tied=shape.tied,
        )
    )
    start_from_text(rows, thinker, seed)
    model = RowThinker(thinker, rows)
    hidden: Tensor = thinker(model.embed(batch.ids), attention=spec).hidden
    loss = row_loss(hidden, batch.labels, thinker.head_weight().detach(), rows.head_rows())
    return loss, list(rows.parameters())


def _resumes(loader: TokenLoader, first: Batch) -> Metric:
    """Whether reading from the state of batch 1 gives what reading on gives."""
    on = loader.batches()
    try:
        same = torch.equal(next(on).ids, first.ids)
        after = next(on).ids
        again = loader.batches(loader.config.batch_size)
        try:
            same = same and torch.equal(next(again).ids, after)
        finally:
            again.close()
    finally:
        on.close()
    return exact(float(same), 2)
