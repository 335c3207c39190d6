"""Codebooks that learn without gradients: vectors to the nearest codes, and codes to vectors.

Knows: moving averages, restarts of dead codes, the straight-through step. Does not know: what the
vectors came from. Costs: one product of all vectors with each codebook.

Codebooks learn by exponential moving averages with codes that fall out of use restarted from live
data (arXiv 1711.00937, 2107.03312); gradients pass straight through.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

EPS = torch.finfo(torch.float32).eps
"""Twice what one rounding may change: scores are compared that were each rounded twice."""


class Books(Protocol):
    """What a quantiser needs of its codec's config."""

    @property
    def codebooks(self) -> int: ...
    @property
    def codebook_size(self) -> int: ...
    @property
    def code_width(self) -> int: ...
    @property
    def decay(self) -> float: ...
    @property
    def restart_below(self) -> float: ...


@dataclass(frozen=True)
class Quantised:
    """vectors [B, F, code_width] (gradient to the encoder), codes [B, F, Q], commitment sum."""

    vectors: Tensor
    codes: Tensor
    commitment: Tensor


class ResidualQuantiser(nn.Module):
    """Q codebooks; each one codes what the ones before it left over."""

    codebooks: Tensor
    usage: Tensor
    sums: Tensor
    started: Tensor

    def __init__(self, config: Books) -> None:
        super().__init__()
        self.config = config
        shape = (config.codebooks, config.codebook_size, config.code_width)
        self.register_buffer("codebooks", torch.zeros(shape))
        self.register_buffer("usage", torch.ones(shape[:2]))
        self.register_buffer("sums", torch.zeros(shape))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def forward(self, vectors: Tensor, mask: Tensor) -> Quantised:
        """vectors [B, F, C], mask [B, F] valid -> Quantised; learns the codebooks in train mode."""
        residual, codes, total = vectors.detach().float(), [], torch.zeros_like(vectors)
        for book in range(self.config.codebooks):
            if self.training and not bool(self.started):
                self._seed(book, residual[mask])
            index = nearest(residual, self.codebooks[book])
            chosen = self.codebooks[book][index]
            if self.training:
                self._learn(book, residual[mask], index[mask])
            residual = residual - chosen
            total = total + chosen
            codes.append(index)
        if self.training:
            self.started.fill_(True)
        valid = mask[..., None]
        commitment = ((vectors - total.detach()) ** 2 * valid).sum() / vectors.shape[-1]
        straight = vectors + (total - vectors).detach()
        return Quantised(straight, torch.stack(codes, -1), commitment)

    def lookup(self, codes: Tensor) -> Tensor:
        """codes [B, F, Q] -> vectors [B, F, C]. Raises ValueError for a code out of range."""
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.usage.shape[1]:
            raise ValueError(
                f"codes span {int(codes.min())} to {int(codes.max())}, but each codebook "
                f"has {self.usage.shape[1]} entries"
            )
        return sum(self.codebooks[q][codes[..., q]] for q in range(codes.shape[-1]))  # type: ignore[return-value]

    def _seed(self, book: int, vectors: Tensor) -> None:
        picks = torch.randint(len(vectors), (self.config.codebook_size,), device=vectors.device)
        centres = vectors[picks] + 1e-4 * torch.randn(vectors[picks].shape, device=vectors.device)
        for _ in range(10):  # a few rounds of k-means on the first batch
            index = nearest(vectors, centres)
            sums = torch.zeros_like(centres).index_add_(0, index, vectors)
            counts = torch.bincount(index, minlength=len(centres)).clamp(min=1)
            centres = torch.where((sums.abs().sum(1) > 0)[:, None], sums / counts[:, None], centres)
        self.codebooks[book].copy_(centres)
        self.sums[book].copy_(centres)

    def _learn(self, book: int, vectors: Tensor, index: Tensor) -> None:
        keep = self.config.decay
        counts = torch.bincount(index, minlength=self.config.codebook_size).float()
        sums = torch.zeros_like(self.sums[book]).index_add_(0, index, vectors)
        self.usage[book].mul_(keep).add_(counts, alpha=1 - keep)
        self.sums[book].mul_(keep).add_(sums, alpha=1 - keep)
        dead = self.usage[book] < self.config.restart_below
        self.codebooks[book].copy_(self.sums[book] / self.usage[book].clamp(min=1e-4)[:, None])
        if bool(dead.any()):
            picks = vectors[torch.randint(len(vectors), (int(dead.sum()),))]
            self.codebooks[book][dead] = picks
            self.sums[book][dead] = picks
            self.usage[book][dead] = 1.0


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index of the closest row of codebook [K, C] for each of vectors [..., C], in fp32."""
    scores = vectors.float() @ codebook.T - 0.5 * (codebook**2).sum(1)
    return scores.argmax(-1)


@torch.no_grad()
def clear_nearest(vectors: Tensor, codebook: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """`nearest`, and whether neither moving a vector by `reach` nor rounding scores otherwise could
    have made another row nearest.

    vectors [..., C], reach [...] -> index [...], bool [...]. What is no number is not clear.
    """
    vectors, lengths = vectors.float(), codebook.norm(dim=1)
    scores = vectors @ codebook.T - 0.5 * (codebook**2).sum(1)
    index = _argmax(scores)
    best = scores.gather(-1, index[..., None])[..., 0]
    rest = scores.scatter_(-1, index[..., None], -torch.inf)
    length = vectors.norm(dim=-1)

    def needed(reach: Tensor, length: Tensor, apart: Tensor, longer: Tensor) -> Tensor:
        """The lead of a score over another: the distance from the border, times that of the rows,
        and what rounding of products of C terms and of what is taken off them may come to."""
        terms = codebook.shape[1] + 1
        return apart * reach + EPS * longer * (2 * terms * length + longer)

    # No two rows are farther apart than twice the longest: few need to be looked at closely.
    longest = lengths.max()
    bound = needed(reach, length, 2 * longest, longest)
    clear = best - rest.amax(-1) > bound
    close = (~clear).nonzero(as_tuple=True)
    index_, rest, least = index[close], rest[close], (best - bound)[close]
    place, rival = (~(rest < least[:, None])).nonzero(as_tuple=True)
    chosen = index_[place]
    apart = (codebook[chosen] - codebook[rival]).norm(dim=-1)
    longer = torch.maximum(lengths[chosen], lengths[rival])
    lead = best[close][place] - rest[place, rival]
    unsure = ~(lead > needed(reach[close][place], length[close][place], apart, longer))
    clear[close] = torch.ones_like(least, dtype=torch.bool).index_fill_(0, place[unsure], False)
    return index, clear


def _argmax(x: Tensor) -> Tensor:
    if x.device.type == "cpu":
        return torch.from_numpy(x.numpy().argmax(-1))  # a tenth of the time of torch's own
    return x.argmax(-1)


@torch.no_grad()
def margins(vectors: Tensor, codebooks: Tensor) -> Tensor:
    """How much farther the second nearest row is than the nearest, float64 [..., Q].

    vectors [..., C], codebooks [Q, K, C] with K at least 2, book after book as codes are chosen.
    Near zero, the last bit of a product can flip the code.
    """
    found, left = [], vectors.float()
    for book in codebooks:
        apart = torch.cdist(left.double().reshape(-1, book.shape[1]), book.double())
        first, second = apart.topk(2, largest=False).values.unbind(-1)
        found.append((second - first).reshape(left.shape[:-1]))
        left = left - book[nearest(left, book)]
    return torch.stack(found, -1)
