"""Two sets of matrices in one Thinker: text goes through its own, new symbols through the maker's.

Knows: a dense Thinker, a copy of it whose blocks' matrices are others, which positions are whose.
Does not know: ids, rows, or what is trained.
Costs: as many products as one Thinker, each over the positions that are its own; the maker's
matrices in memory.

Everybody reads everybody: only the matrices differ (Mixture-of-Transformers, arXiv 2411.04996, with
the text's own left as they are, as in LMFusion, arXiv 2412.15188). A sequence of text alone never
meets the maker, so nothing that is learned for pictures and sounds can cost it a bit. What is said
of pictures and sounds is the maker's too, else text's matrices would have to learn to read them.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.asked import asked_rows
from lumoomni.model.attention import AttentionSpec, KVCache
from lumoomni.model.thinker import Thinker, ThinkerOutput
from lumoomni.shapes import ROWS, round_up

MATRICES = ("attention.qkv", "attention.out", "ffn.gate_up", "ffn.down")


@dataclass
class Route:
    """Where the positions [B * T] of the present batch go: text first, which takes `text` places.

    Both parts are filled up with position 0 to a size of few (`shapes.py`); `order` [P] says which
    position stands at a place, `back` [B * T] where a position stands, `gaps` what was filled up.
    """

    order: Tensor
    back: Tensor
    text: int
    gaps: tuple[slice, slice]


class _Sorted(torch.autograd.Function):
    """x [B * T, C] -> [P, C] by a route; the gradient is gathered back instead of scattered."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, route: Route) -> Tensor:
        ctx.route = route
        return x.index_select(0, route.order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0].index_select(0, ctx.route.back), None


class _Unsorted(torch.autograd.Function):
    """x [P, C] -> [B * T, C]: undoes `_Sorted`; what filled up the gaps has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, route: Route) -> Tensor:
        ctx.route = route
        return x.index_select(0, route.back)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        found = grads[0].index_select(0, ctx.route.order)
        for gap in ctx.route.gaps:
            found[gap] = 0
        return found, None


class Routed(nn.Module):
    """[..., C] -> [..., E]: each position through one of two matrices."""

    def __init__(self, text: nn.Linear, new: nn.Linear, place: "list[Route]") -> None:
        super().__init__()
        self.text, self.new = text, new
        self._place = place

    def forward(self, x: Tensor) -> Tensor:
        count = x.numel() // x.shape[-1]
        route = next(one for one in self._place if len(one.back) == count)
        if route.text == len(route.order):
            return self.text(x)
        if not route.text:
            return self.new(x)
        sorted_x = _Sorted.apply(x.reshape(-1, x.shape[-1]), route)
        assert isinstance(sorted_x, Tensor)
        text, new = sorted_x.tensor_split([route.text])
        both = _Unsorted.apply(torch.cat([self.text(text), self.new(new)]), route)
        assert isinstance(both, Tensor)
        return both.view(*x.shape[:-1], -1)


class RoutedThinker:
    """A view of a Thinker and its maker, which own all that is in it. From here on the maker shares
    all but its matrices with the Thinker: alone, it steps as the view reads."""

    def __init__(self, thinker: Thinker, maker: Thinker) -> None:
        refuse_unlike(thinker, maker)
        _tie(thinker, maker)
        self._thinker = thinker
        self._place: list[Route] = []
        # Shares every tensor, and every module that holds no others: only what leads to matrices
        # is new, so that whatever moves or switches the Thinker moves and switches this.
        memo = {id(p): p for p in (*thinker.parameters(), *thinker.buffers())}
        memo |= {id(m): m for m in thinker.modules() if not list(m.children())}
        self._view = copy.deepcopy(thinker, memo)
        for own, other in zip(self._view.blocks, maker.blocks, strict=True):
            for name in MATRICES:
                parent, _, last = name.rpartition(".")
                text, new = own.get_submodule(name), other.get_submodule(name)
                assert isinstance(text, nn.Linear) and isinstance(new, nn.Linear)
                setattr(own.get_submodule(parent), last, Routed(text, new, self._place))

    def __call__(
        self,
        embeds: Tensor,
        new: Tensor,
        attention: AttentionSpec | None = None,
        cache: KVCache | None = None,
        asked: Tensor | None = None,
    ) -> ThinkerOutput:
        """embeds [B, T, D] -> hidden [B, T, D]; `new` bool [B, T] says whose a position is, `asked`
        as in the Thinker."""
        whose = new.reshape(-1)
        self._place[:] = [route_of(whose)]
        picked = None if asked is None else asked_rows(asked)
        if picked is not None:  # the last layer's rows have a route of their own
            self._place.append(route_of(F.pad(whose[picked.rows], (0, picked.gap))))
        self._view.checkpointing = self._thinker.checkpointing
        return self._view(embeds, attention=attention, cache=cache, asked=asked)


def route_of(new: Tensor) -> Route:
    """The route of positions [N] of which `new` bool [N] says whose they are."""
    text, other = (~new).nonzero()[:, 0], new.nonzero()[:, 0]
    ends = [round_up(len(part), ROWS) for part in (text, other)]
    order = new.new_zeros(sum(ends), dtype=torch.long)
    back = torch.empty_like(new, dtype=torch.long)
    for part, start in ((text, 0), (other, ends[0])):
        order[start : start + len(part)] = part
        back[part] = torch.arange(start, start + len(part), device=new.device)
    gaps = slice(len(text), ends[0]), slice(ends[0] + len(other), sum(ends))
    return Route(order, back, ends[0], gaps)


def new_maker(thinker: Thinker) -> Thinker:
    """A copy of a Thinker, to become its maker. Raises ValueError where there are experts."""
    refuse_unlike(thinker, thinker)
    return copy.deepcopy(thinker)


def matrices(maker: Thinker) -> nn.ModuleList:
    """What of a maker is its own; the rest is the Thinker's."""
    return nn.ModuleList(block.get_submodule(name) for block in maker.blocks for name in MATRICES)


def _tie(thinker: Thinker, maker: Thinker) -> None:
    """Put the Thinker's norms, tables and convolution in the place of the maker's."""
    own = {id(parameter) for parameter in matrices(maker).parameters()}
    for name, parameter in list(maker.named_parameters()):
        if id(parameter) not in own:
            parent, _, last = name.rpartition(".")
            setattr(maker.get_submodule(parent), last, thinker.get_parameter(name))


def refuse_unlike(thinker: Thinker, maker: Thinker) -> None:
    """Raises ValueError unless both have one shape, without experts."""
    if thinker.config != maker.config:
        raise ValueError(
            f"a maker has its Thinker's shape, but one has {thinker.config} and the other "
            f"{maker.config}"
        )
    if any(getattr(block, "moe", None) is not None for block in thinker.blocks):
        raise ValueError("a Thinker with experts routes by itself; use one without")
