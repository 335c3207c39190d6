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
from torch import Tensor, nn

from lumoomni.model.attention import AttentionSpec, KVCache
from lumoomni.model.thinker import Thinker, ThinkerOutput

MATRICES = ("attention.qkv", "attention.out", "ffn.gate_up", "ffn.down")


@dataclass
class Route:
    """The positions [B * T] of the present batch with text first, of which there are `text`; `back`
    undoes this."""

    order: Tensor
    back: Tensor
    text: int


class _Ordered(torch.autograd.Function):
    """x [N, C] -> x[order]; `back` undoes it, so that the gradient need not be scattered."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (back,) = ctx.saved_tensors
        return grads[0].index_select(0, back), None, None


class Routed(nn.Module):
    """[..., C] -> [..., E]: each position through one of two matrices."""

    def __init__(self, text: nn.Linear, new: nn.Linear, place: "list[Route]") -> None:
        super().__init__()
        self.text, self.new = text, new
        self._place = place

    def forward(self, x: Tensor) -> Tensor:
        (route,) = self._place
        if route.text == len(route.order):
            return self.text(x)
        if not route.text:
            return self.new(x)
        sorted_x = _Ordered.apply(x.reshape(-1, x.shape[-1]), route.order, route.back)
        assert isinstance(sorted_x, Tensor)
        text, new = sorted_x.tensor_split([route.text])
        both = _Ordered.apply(torch.cat([self.text(text), self.new(new)]), route.back, route.order)
        assert isinstance(both, Tensor)
        return both.view(*x.shape[:-1], -1)


class RoutedThinker:
    """A view of a Thinker and its maker, which own all that is in it. From here on the maker shares
    all but its matrices with the Thinker: alone, it steps as the view reads."""

    def __init__(self, thinker: Thinker, maker: Thinker) -> None:
        refuse_unlike(thinker, maker)
        _tie(thinker, maker)
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
    ) -> ThinkerOutput:
        """embeds [B, T, D] -> hidden [B, T, D]; `new` bool [B, T] says whose a position is."""
        flat = new.reshape(-1)
        text, other = (~flat).nonzero()[:, 0], flat.nonzero()[:, 0]
        order = torch.cat([text, other])
        self._place[:] = [Route(order, order.argsort(), len(text))]
        return self._view(embeds, attention=attention, cache=cache)


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
