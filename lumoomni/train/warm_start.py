"""Connectors that start by meaning something, in the Thinker's own embeddings.

Knows: towers' features, embeddings of ids; linear maps come from `train/ridge.py`.
Does not know: where the pictures, captions and sounds came from.
Costs: one forward of the vision tower over some hundred pictures and one small linear system.

Why: a random connector speaks a language that the Thinker has never read, and most of joint
training goes into finding a common one. The recogniser already knows which id each of its frames
spells, and a caption which words a picture holds: both can be said from the first update.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lumoomni.model.audio import AudioTower
from lumoomni.model.connector import LinearConnector
from lumoomni.model.vision import VisionTower
from lumoomni.train.ridge import ridge


@torch.no_grad()
def start_ears(connector: LinearConnector, tower: AudioTower, table: Tensor, nothing: int) -> None:
    """Say each frame as the embedding of the id that CTC hears in it; table [V, D].

    A blank frame becomes row `nothing`, and the linear path starts silent: it is there for all that
    ids do not spell. Raises ValueError when the tower's symbols and the connector's differ.
    """
    head, spell, symbols = tower.ctc, connector.spell, connector.symbol_table
    if head is None or spell is None or symbols is None or head.weight.shape != spell.weight.shape:
        raise ValueError(
            f"the connector spells {connector.config.symbols} symbols, but the tower's head has "
            f"{tower.config.symbols + 1} with the blank"
        )
    spell.load_state_dict(head.state_dict())
    symbols[0] = table[nothing]
    symbols[1:] = table[: len(symbols) - 1]
    torch.nn.init.zeros_(connector.project.weight)
    torch.nn.init.zeros_(connector.project.bias)


@dataclass(frozen=True, kw_only=True)
class Described:
    """Ids of a picture's caption, and of each described region with the cells that it covers."""

    caption: Sequence[int]
    regions: Sequence[tuple[Sequence[int], Sequence[int]]] = ()


@torch.no_grad()
def start_eyes(
    connector: LinearConnector,
    tower: VisionTower,
    table: Tensor,
    pixels: Tensor,
    described: Sequence[Described],
) -> None:
    """Map positions to the embeddings of what they show; pixels [I, 3, S, S], table [V, D].

    Where regions are described, each position is fitted to the summed embeddings of the regions
    over it and to zeros elsewhere; where none is, only the sum over a picture's positions is
    fitted, to the sum of its caption's embeddings.
    """
    features = torch.cat([connector.pooled(tower(part)) for part in pixels.split(128)])
    places = features.shape[1]
    if any(one.regions for one in described):
        wanted = torch.zeros(len(described), places, table.shape[1])
        for i, one in enumerate(described):
            for ids, cells in one.regions:
                wanted[i, list(cells)] += table[torch.tensor(ids)].sum(0)
        weight, bias = ridge(features.flatten(0, 1), wanted.flatten(0, 1))
    else:
        sums = torch.stack([table[torch.tensor(one.caption)].sum(0) for one in described])
        weight, bias = ridge(features.sum(1), sums)
        bias = bias / places
    connector.project.weight.copy_(weight)
    connector.project.bias.copy_(bias)
