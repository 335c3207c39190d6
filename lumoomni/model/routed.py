"""Two sets of matrices in one Thinker: text goes through its own, new symbols through the maker's.

Knows: a dense Thinker, a copy of it whose blocks' matrices are others, which positions are whose.
Does not know: ids, rows, or what is trained.
Costs: as many products as one Thinker, each over the positions that are its own; the maker's
matrices in memory.

Everybody reads everybody: only the matrices differ (Mixture-of-Transformers, arXiv 2411.04996, with
the text's own left as they are, as in LMFusion, arXiv 2412.15188). A sequence of text alone never
meets the maker, so nothing that is learned for pictures and sounds can cost it a bit.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lumoomni.model.attention import AttentionSpec, KVCache
from lumoomni.model.thinker import Thinker, ThinkerOutput

MATRICES = ("attention.qkv", "attention.out", "ffn.gate_up", "ffn.down")


@dataclass
class Route:
    """Where the positions [B * T] of the present batch go; `back` undoes text first, new last."""

    text: Tensor
    new: Tensor
    back: Tensor


class Routed(nn.Module):
    """[..., C] -> [..., E]: each position through one of two matrices."""

    def __init__(self, text: nn.Linear, new: nn.Linear, place: "list[Route]") -> None:
        super().__init__()
        self.text, self.new = text, new
        self._place = place

    def forward(self, x: Tensor) -> Tensor:
        (route,) = self._place
        if not len(route.new):
            return self.text(x)
        if not len(route.text):
            return self.new(x)
        flat = x.reshape(-1, x.shape[-1])
        both = torch.cat([self.text(flat[route.text]), self.new(flat[route.new])])
        return both[route.back].view(*x.shape[:-1], -1)


class RoutedThinker:
    """A view of a Thinker and its maker, which own all that is in it."""

    def __init__(self, thinker: Thinker, maker: Thinker) -> None:
        refuse_unlike(thinker, maker)
        self._place: list[Route] = []
        # Shares every tensor, and every module that holds no others: only what leads to matrices
        # is new, so that whatever moves or switches the Thinker moves and switches this.
        memo = {id(p): p for p in (*thinker.parameters(), *thinker.buffers())}
        memo |= {id(m): m for m in thinker.modules() if not list(m.children())}
        self._view = copy.deepcopy(thinker, memo)
        for own, other in zip(self._view.blocks, maker.blocks, strict=True):
            for name in MATRICES:
                parent, _, last = name.rpartition(".")
                pair = own.get_submodule(name), other.get_submodule(name)
                assert isinstance(pair[0], nn.Linear) and isinstance(pair[1], nn.Linear)
                setattr(own.get_submodule(parent), last, Routed(*pair, self._place))

    def __call__(
        self,
        embeds: Tensor,
        new: Tensor,
        attention: AttentionSpec | None = None,
        cache: KVCache | None = None,
    ) -> ThinkerOutput:
        """embeds [B, T, D] -> hidden [B, T, D]; `new` bool [B, T] says whose a position is."""
        flat = new.reshape(-1)
        order = torch.cat([(~flat).nonzero()[:, 0], flat.nonzero()[:, 0]])
        count = len(flat) - int(flat.sum())
        self._place[:] = [Route(order[:count], order[count:], order.argsort())]
        return self._view(embeds, attention=attention, cache=cache)


def new_maker(thinker: Thinker) -> Thinker:
    """A copy of a Thinker, to become its maker. Raises ValueError where there are experts."""
    refuse_unlike(thinker, thinker)
    return copy.deepcopy(thinker)


def matrices(maker: Thinker) -> list[nn.Parameter]:
    """What of a maker is its own; the rest is the Thinker's."""
    found = [block.get_submodule(name) for block in maker.blocks for name in MATRICES]
    return [parameter for module in found for parameter in module.parameters()]


def refuse_unlike(thinker: Thinker, maker: Thinker) -> None:
    """Raises ValueError unless both have one shape, without experts."""
    if thinker.config != maker.config:
        raise ValueError(
            f"a maker has its Thinker's shape, but one has {thinker.config} and the other "
            f"{maker.config}"
        )
    if any(getattr(block, "moe", None) is not None for block in thinker.blocks):
        raise ValueError("a Thinker with experts routes by itself; use one without")
