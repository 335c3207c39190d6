"""What a Thinker with new rows learns from: token samples of several tasks, and text, by number.

Knows: weights of tasks, an order over all of them, where one mixture follows another, which shards
have what a task needs. Does not know: how text is laid out, batches or models.
Costs: a few numpy calls a sample; of each shard set the lengths are read once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from lumoomni.data.conversation import Encoded
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.token_loader import LoaderConfig, Share, TokenLoader
from lumoomni.errors import InputError

OTHER_WAY = {"i2t": "t2i", "t2i": "i2t", "a2t": "t2a", "t2a": "a2t"}
"""Records of either way hold a medium and its text, so each serves both."""
PARTS = 16
"""How finely sets of shards share a task, by their sizes."""


@dataclass(frozen=True, kw_only=True)
class TokenMix:
    """Of any sum of these, so many samples of each task; `text` is text alone."""

    t2i: int = 0
    t2a: int = 0
    i2t: int = 0
    a2t: int = 0
    text: int = 0

    def __post_init__(self) -> None:
        weights = [getattr(self, one.name) for one in fields(self)]
        if min(weights) < 0 or not sum(weights):
            raise InputError(f"a mixture's weights are {weights}; none may be negative, nor all 0")

    @property
    def tasks(self) -> dict[str, int]:
        """Weights of the tasks that are read from shards, those of weight 0 left out."""
        named = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "text"}
        return {name: weight for name, weight in named.items() if weight}


class TokenMixture:
    """Sample g of a mixture as a sequence; a pure function of g.

    Raises InputError for shards of different spaces, or a task that no shard has samples of.
    """

    def __init__(
        self,
        shards: Sequence[ShardSet],
        mix: TokenMix,
        config: LoaderConfig,
        text: Callable[[int], Encoded] | None = None,
    ) -> None:
        if mix.text and text is None:
            raise InputError(f"text has weight {mix.text} in a mixture without a source of text")
        self._text, self._each = text, (mix.text, sum(mix.tasks.values()))
        shares = [
            one for task, weight in mix.tasks.items() for one in shares_of(shards, task, weight)
        ]
        self._loader = TokenLoader(shares, config) if shares else None

    def __call__(self, index: int) -> Encoded:
        """Sample number `index`."""
        text, tokens = self._each
        block, turn = divmod(index, text + tokens)
        if turn < text:
            assert self._text is not None
            return self._text(block * text + turn)
        assert self._loader is not None
        made = self._loader.item(block * tokens + turn - text)
        return Encoded(sequence=made, pixels=(), mels=())


class Curriculum:
    """One mixture up to sample number `edge`, another from there on."""

    def __init__(
        self, first: Callable[[int], Encoded], then: Callable[[int], Encoded], edge: int
    ) -> None:
        self._first, self._then, self._edge = first, then, edge

    def __call__(self, index: int) -> Encoded:
        """Sample number `index`."""
        return (self._first if index < self._edge else self._then)(index)


def shares_of(shards: Sequence[ShardSet], task: str, weight: int) -> list[Share]:
    """The shares of a task, of together `weight` parts: by size, and at least one part each.

    Raises InputError when none of the shards has samples of it.
    """
    found = [(one, records) for one in shards if (records := records_for(one, task))]
    if not found:
        raise InputError(
            f"no shard has samples of {task} in its training split; tokenize some, or set its "
            "weight to 0"
        )
    sizes = [one.counts["train"].tasks[records] for one, records in found]
    return [
        Share(
            shards=one,
            task=task,
            weight=weight * max(1, round(PARTS * size / sum(sizes))),
            records=(records,),
        )
        for (one, records), size in zip(found, sizes, strict=True)
    ]


def records_for(shards: ShardSet, task: str) -> str:
    """The task of the records that serve: its own, or else the other way round; "" for none."""
    there = shards.counts["train"].tasks if "train" in shards.counts else {}
    return next((name for name in (task, OTHER_WAY[task]) if there.get(name)), "")
