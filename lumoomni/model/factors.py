"""Rows of codes that are made of parts: each is the sum of one vector for each of its parts.

Knows: which value of each part a code has, and how its row is made of these. Does not know: what
the parts mean (`codecs/scalar.py`), or losses. Costs: a vector for each value instead of one for
each code; nano's 9,072 codes are 36 colours and 252 forms.

How likely a code is, is then a product of how likely its parts are: one that training never shows
is not thereby wrong. And where every combination of parts is a code, the sum of exp over all codes
is a product of sums over values, so that the loss needs no logits of codes (`train/row_loss.py`).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class FactoredRows:
    """Head rows of new ids of which those from `place` on are sums.

    plain [K - n, D] are the others; parts [S, D] each; values int64 [n, P] say which of each part.
    """

    plain: Tensor
    parts: tuple[Tensor, ...]
    place: int
    values: Tensor

    @property
    def count(self) -> int:
        """New ids in all."""
        return len(self.plain) + len(self.values)

    def split(self, index: Tensor) -> list[Tensor]:
        """Of new ids int64 [N], counted from 0: the row of `plain` that each is, then the value of
        each part; -1 where it has none."""
        codes = index - self.place
        inside = (codes >= 0) & (codes < len(self.values))
        plain = torch.where(index < self.place, index, index - len(self.values))
        values = self.values[codes.clamp(0, len(self.values) - 1)]
        found = [plain.masked_fill(inside | (index < 0), -1)]
        return found + [one.masked_fill(~inside, -1) for one in values.unbind(1)]


class Factors(nn.Module):
    """A vector for each value of each part; at first what the codes' rows have in common with it.

    parts int64 [n, P] of the codes at rows `place` .. of table [K, D]. What of these rows is no sum
    of their parts is left out. Raises ValueError unless every combination of values is one code.
    """

    values: Tensor
    features: Tensor

    def __init__(self, parts: Tensor, place: int, table: Tensor) -> None:
        super().__init__()
        self.place, self.sizes = place, [int(one.max()) + 1 for one in parts.unbind(1)]
        if len(parts) != math.prod(self.sizes) or len(parts.unique(dim=0)) != len(parts):
            raise ValueError(
                f"{len(parts)} codes of parts with {self.sizes} values are not every combination "
                "once; let them share digits instead"
            )
        starts = [sum(self.sizes[:k]) for k in range(len(self.sizes))]
        features = parts + torch.tensor(starts, device=parts.device)
        self.register_buffer("values", parts, persistent=False)
        self.register_buffer("features", features, persistent=False)
        rows = table.detach()[place : place + len(parts)].float()
        means = [_means(rows, one, size) for one, size in zip(parts.T, self.sizes, strict=True)]
        levels = [means[0], *(one - rows.mean(0) for one in means[1:])]
        self.level_table = nn.Parameter(torch.cat(levels))

    def others(self, table: Tensor) -> Tensor:
        """Of table [K, D] the rows [K - n, D] that are no codes."""
        end = self.place + len(self.values)
        return torch.cat([table[: self.place], table[end:]])

    def added_to(self, others: Tensor) -> Tensor:
        """Rows [K, D]: others [K - n, D] with the codes' in their places."""
        before, after = others.tensor_split([self.place])
        return torch.cat([before, self.rows(self.features), after])

    def rows(self, features: Tensor) -> Tensor:
        """features [..., P] -> [..., D]."""
        return F.embedding(features, self.level_table).sum(-2)

    def embedded(self, index: Tensor, others: Tensor) -> Tensor:
        """Rows [..., D] of new ids [...], counted from 0, without making those of all codes."""
        count = len(self.values)
        codes = index - self.place
        inside = (codes >= 0) & (codes < count)
        plain = torch.where(codes < count, index, index - count).masked_fill(inside, 0)
        found = self.rows(self.features[codes.clamp(0, count - 1)])
        return torch.where(inside[..., None], found, F.embedding(plain, others))

    def head(self, others: Tensor) -> FactoredRows:
        """What scores new ids, of which `others` [K - n, D] are no codes."""
        return FactoredRows(others, self.level_table.split(self.sizes), self.place, self.values)


def _means(rows: Tensor, value: Tensor, size: int) -> Tensor:
    """rows [n, D] -> [size, D]: the mean of those that have each value."""
    sums = rows.new_zeros(size, rows.shape[1]).index_add_(0, value, rows)
    return sums / torch.bincount(value, minlength=size)[:, None]
