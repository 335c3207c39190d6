"""New symbols for a frozen Thinker: embedding and head rows of their own, beside its tables.

Knows: how ids past the base table are embedded, and how logits over both blocks are made.
Does not know: what the symbols mean, losses, or where rows are stored (`infer/row_package.py`).
Costs: K x D numbers, twice where the base's head is untied. The base table is never copied,
resized or written, so every id of it is embedded and scored to the bit as before.

Rows are float32 whatever the base's type, for small updates vanish in bfloat16, and are cast per
use. A Thinker with tied tables gets one set of rows for both ends.

Where codes are made of parts (`codecs/scalar.py`), their rows can share what equal parts have in
common while they learn (`Shared`), or be no more than that (`model/factors.py`): a code that
training never shows is then not a stranger.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.attention import AttentionSpec, KVCache, since_start
from lumoomni.model.factors import FactoredRows, Factors
from lumoomni.model.routed import RoutedThinker
from lumoomni.model.thinker import Thinker, ThinkerOutput


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """Ids `start` .. `start + count - 1`; `start` is the base table's length. The first `markers`
    of them say where things begin and end; all others are pictures and sounds."""

    start: int
    count: int
    width: int
    tied: bool = True
    markers: int = 0

    def __post_init__(self) -> None:
        if min(self.start, self.count, self.width) < 1:
            raise ValueError(
                f"rows need a base, a count and a width, got {self.start}, {self.count} and "
                f"{self.width}"
            )


class Shared(nn.Module):
    """A vector for each value of each part that codes are made of; zero at first.

    parts int64 [n, C] of n codes. There is a vector for each two parts' values too, so that a code
    shares C (C + 1) / 2, and its own row learns beside them.
    """

    features: Tensor

    def __init__(self, parts: Tensor, place: int, width: int) -> None:
        super().__init__()
        self.place = place
        columns = list(parts.unbind(1))
        for a, b in itertools.combinations(parts.unbind(1), 2):
            columns.append(a * (int(b.max()) + 1) + b)
        sizes = torch.tensor([int(one.max()) + 1 for one in columns])
        starts = sizes.cumsum(0) - sizes
        features = torch.stack(columns, 1) + starts.to(parts.device)
        self.register_buffer("features", features, persistent=False)
        self.level_table = nn.Parameter(torch.zeros(int(sizes.sum()), width))

    def added_to(self, table: Tensor) -> Tensor:
        """table [K, D] with what is shared added to the codes' rows."""
        found = F.embedding_bag(self.features, self.level_table, mode="sum")
        end = self.place + len(found)
        return F.pad(found, (0, 0, self.place, len(table) - end)) + table


class Rows(nn.Module):
    """`row_table` [K, D] embeds, `row_head` [K, D] scores; one table when tied."""

    def __init__(self, config: RowsConfig) -> None:
        super().__init__()
        self.config = config
        self.row_table = nn.Parameter(torch.empty(config.count, config.width))
        self.row_head = None if config.tied else nn.Parameter(torch.empty_like(self.row_table))
        self.shared: Shared | Factors | None = None
        self.shared_head: Shared | Factors | None = None
        # Beside codes that are sums alone, the rows that are none learn by themselves, and the
        # whole table rests: every update would clear and add up gradients of all its rows.
        self.plain_table: nn.Parameter | None = None
        self.plain_head: nn.Parameter | None = None
        nn.init.normal_(self.row_table, std=0.02)
        if self.row_head is not None:
            nn.init.normal_(self.row_head, std=0.02)

    def share(self, place: int, parts: Tensor, *, alone: bool = False) -> None:
        """Let the codes from row `place` on, of parts [n, C], share what equal parts have; with the
        parts `alone`, have nothing else."""
        if not 0 <= place <= place + len(parts) <= self.config.count:
            raise ValueError(
                f"{len(parts)} codes from row {place} on do not fit into {self.config.count} rows"
            )

        self.shared, self.plain_table = self._sharing(self.row_table, place, parts, alone)
        if self.row_head is not None:
            self.shared_head, self.plain_head = self._sharing(self.row_head, place, parts, alone)
        if alone:
            self._rest(True)

    def _rest(self, resting: bool) -> None:
        """Whether the whole tables are tensors that nothing learns, or parameters."""
        for name in ("row_table", "row_head"):
            table = getattr(self, name)
            if table is not None:
                delattr(self, name)
                if resting:
                    self.register_buffer(name, table.detach(), persistent=False)
                else:
                    self.register_parameter(name, nn.Parameter(table))

    def _sharing(
        self, table: Tensor, place: int, parts: Tensor, alone: bool
    ) -> tuple[Shared | Factors, nn.Parameter | None]:
        if not alone:
            return Shared(parts, place, self.config.width), None
        factors = Factors(parts, place, table)
        return factors, nn.Parameter(factors.others(table.detach()))

    @torch.no_grad()
    def settle(self) -> None:
        """Add what is shared to the rows, and share no more."""
        self.row_table.copy_(self.embedding_rows())
        if self.row_head is not None:
            self.row_head.copy_(self.head_rows())
        if self.plain_table is not None:
            self._rest(False)
        self.shared = self.shared_head = None
        self.plain_table = self.plain_head = None

    def embedding_rows(self) -> Tensor:
        """[K, D] that embed."""
        return self.row_table if self.shared is None else self.shared.added_to(self._table)

    def head_rows(self) -> Tensor:
        """[K, D] that score: the tied table, or the head's own."""
        if self.row_head is None:
            return self.embedding_rows()
        return self.row_head if self.shared_head is None else self.shared_head.added_to(self._head)

    def learned_head(self) -> Tensor | FactoredRows:
        """What a loss needs of `head_rows`: those of codes of parts alone are not made."""
        table = self._table if self.row_head is None else self._head
        shared = self.shared if self.row_head is None else self.shared_head
        return shared.head(table) if isinstance(shared, Factors) else self.head_rows()

    @property
    def _table(self) -> Tensor:
        """What learns beside what is shared: all rows, or those that are no sums."""
        return self.row_table if self.plain_table is None else self.plain_table

    @property
    def _head(self) -> Tensor:
        found = self.row_head if self.plain_head is None else self.plain_head
        assert found is not None
        return found

    def embed(self, ids: Tensor, table: Tensor) -> Tensor:
        """ids [...] over both blocks -> [..., D] in the base table's type.

        Raises ValueError for an id past the last row.
        """
        start, count = self.config.start, self.config.count
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < start + count:
            raise ValueError(
                f"ids run from {int(ids.min())} to {int(ids.max())}, but there are {start} base "
                f"rows and {count} new ones"
            )
        new = ids >= start
        base = F.embedding(ids.clamp(max=start - 1), table)
        if not bool(new.any()):
            return base
        rows = self._embedded((ids - start).clamp(min=0)).to(base.dtype)
        return torch.where(new[..., None], rows, base)

    def _embedded(self, index: Tensor) -> Tensor:
        """Rows of new ids, counted from 0."""
        if isinstance(self.shared, Factors):
            return self.shared.embedded(index, self._table)
        return F.embedding(index, self.embedding_rows())


class RowThinker(nn.Module):
    """A Thinker with new rows: the same body, ids and logits over both blocks.

    The Thinker is held, not owned: what is trained of it is the caller's business. With a `maker`,
    new ids go through matrices of their own (`model/routed.py`), and so does what follows a picture
    or a sound: it is said of these. Text alone, and what pictures are asked for with, does not.
    """

    def __init__(self, thinker: Thinker, rows: Rows, maker: Thinker | None = None) -> None:
        super().__init__()
        refuse_misfit(thinker, rows.config)
        self.thinker, self.rows, self.maker = thinker, rows, maker
        self._routed = None if maker is None else RoutedThinker(thinker, maker)

    @property
    def size(self) -> int:
        """Ids in all."""
        return self.rows.config.start + self.rows.config.count

    def embed(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> [B, T, D]."""
        return self.rows.embed(ids, self.thinker.token_table.weight)

    def forward(
        self,
        ids: Tensor,
        attention: AttentionSpec | None = None,
        cache: KVCache | None = None,
        asked: Tensor | None = None,
    ) -> ThinkerOutput:
        """ids [B, T] -> hidden [B, T, D]; padding may be of any id. `asked` as in the Thinker.

        Raises ValueError when there is a maker and the cache holds earlier ids: nobody knows then
        what these followed.
        """
        embeds = self.embed(ids)
        if self._routed is None:
            return self.thinker(embeds, attention=attention, cache=cache, asked=asked)
        if cache is not None and cache.length:
            raise ValueError(
                f"{cache.length} positions are cached; give a whole request, then step with "
                "whom `stepping` names"
            )
        makers = (ids >= self.rows.config.start) | self.after_media(ids, attention)
        return self._routed(embeds, makers, attention, cache, asked)

    def after_media(self, ids: Tensor, attention: AttentionSpec | None = None) -> Tensor:
        """Which positions bool [B, T] are of a picture or a sound or follow one in their
        document."""
        media = ids >= self.rows.config.start + self.rows.config.markers
        before = media.cumsum(1) - media.long()
        if attention is not None and attention.documents is not None:
            before = since_start(before, attention.documents)
        return media | (before > 0)

    def stepping(self, first: int, after_media: bool = False) -> Thinker:
        """Whose matrices a position of this id goes through."""
        if self.maker is None or not (after_media or first >= self.rows.config.start):
            return self.thinker
        return self.maker

    def head(self, hidden: Tensor) -> Tensor:
        """hidden [..., D] -> logits [..., V + K]. The base's product has the shape that it has
        without new rows, so that its logits are the same bits."""
        rows = F.linear(hidden, self.rows.head_rows().to(hidden.dtype))
        return torch.cat([self.thinker.head(hidden), rows], -1)

    def head_slice(self, hidden: Tensor, spans: Sequence[tuple[int, int]]) -> Tensor:
        """Logits [..., n] of the ids of `spans` (start, stop) alone, one after the other."""
        weights = [self.weight_slice(start, stop) for start, stop in spans]
        return torch.cat([F.linear(hidden, w.to(hidden.dtype)) for w in weights], -1)

    def weight_slice(self, start: int, stop: int) -> Tensor:
        """Head rows [stop - start, D] of ids start .. stop - 1, which lie in one block: a view."""
        edge = self.rows.config.start
        if not 0 <= start < stop <= self.size or start < edge < stop:
            raise ValueError(
                f"ids {start} to {stop - 1} are no part of one block: the base ends at {edge}, "
                f"all at {self.size}"
            )
        if start >= edge:
            return self.rows.head_rows()[start - edge : stop - edge]
        return self.thinker.head_weight()[start:stop]


def refuse_misfit(thinker: Thinker, config: RowsConfig) -> None:
    """Raises ValueError unless rows begin where the Thinker's table ends and are as wide."""
    shape = thinker.config
    have = (shape.vocab_size, shape.width, shape.tied)
    want = (config.start, config.width, config.tied)
    if have != want:
        raise ValueError(
            f"rows were made for a base of {want[0]} rows, width {want[1]}, tied {want[2]}, but "
            f"this Thinker has {have[0]}, {have[1]}, {have[2]}"
        )


@torch.no_grad()
def start_from_text(rows: Rows, thinker: Thinker, seed: int, spread: float = 0.02) -> None:
    """Each row at the mean of the text rows plus noise of `spread` of their deviation, by width.

    The seed's start (its Stage 3); rows that nothing better is known of.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = [(rows.row_table, thinker.token_table.weight)]
    if rows.row_head is not None:
        pairs.append((rows.row_head, thinker.head_weight()))
    for new, base in pairs:
        text = base.detach().float()
        noise = torch.randn(new.shape, generator=generator).to(text.device)
        new.copy_(text.mean(0) + spread * text.std(0) * noise)


@torch.no_grad()
def start_from_vectors(
    rows: Rows, thinker: Thinker, place: int, vectors: Tensor, seed: int, share: float = 1.0
) -> None:
    """Rows `place` .. of as many codes as `vectors` [n, C] has, laid out as these lie.

    A random projection with orthogonal columns keeps the codebook's geometry (distances and
    angles between codes); mean and deviation become those of the text rows, so that no new symbol
    is louder than a word. `share` scales the part that differs between codes.
    """
    count, depth = vectors.shape
    if not 0 <= place <= place + count <= rows.config.count:
        raise ValueError(
            f"{count} codes from row {place} on do not fit into {rows.config.count} rows"
        )
    generator = torch.Generator().manual_seed(seed)
    centred = vectors.detach().float().cpu()
    centred = centred - centred.mean(0)
    wide = torch.randn(max(depth, rows.config.width), rows.config.width, generator=generator)
    projection = torch.linalg.qr(wide)[0][:depth]
    laid = centred @ projection if depth <= len(projection) else centred[:, : len(projection)]
    pairs = [(rows.row_table, thinker.token_table.weight)]
    if rows.row_head is not None:
        pairs.append((rows.row_head, thinker.head_weight()))
    for new, base in pairs:
        text = base.detach().float().cpu()
        size = (text - text.mean(0)).norm(dim=1).mean()
        scaled = laid * (share * size / laid.norm(dim=1).mean().clamp(min=1e-8))
        new[place : place + count] = (text.mean(0) + scaled).to(new.device, new.dtype)
