"""Which of several pictures or sounds serves its words best: the one that they are best read off.

Knows: a Thinker with new rows, the token space. Does not know: how media are made, or what is right
in them. Costs: one pass over each candidate, no head but text's.

What draws can also read. Of some drawings of the same words, the one from which the model itself is
least surprised to read these words is the best told (as pictures were ranked by a second model in
arXiv 2102.12092; here it is the same). How likely the drawing was to begin with is `compose`'s.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lumoomni.model.attention import AttentionSpec
from lumoomni.model.rows import RowThinker
from lumoomni.uti.grammar import END, START
from lumoomni.uti.interface import TokenSpan
from lumoomni.uti.space import TokenSpace

AT_ONCE = 64


def read_back(
    model: RowThinker,
    space: TokenSpace,
    texts: Sequence[TokenSpan],
    shown: Sequence[Sequence[int]],
) -> np.ndarray:
    """float64 [n]: the log-probability of each text, asked for by a request that shows what was
    made of it.

    An empty text says nothing and gets 0, so that all serve it alike.
    """
    found = np.zeros(len(shown))
    told = [k for k, text in enumerate(texts) if len(text.ids)]
    for first in range(0, len(told), AT_ONCE):
        part = told[first : first + AT_ONCE]
        pairs = [(shown[k], _said(space, texts[k])) for k in part]
        found[part] = _scores(model, space, pairs)
    return found


def _said(space: TokenSpace, text: TokenSpan) -> list[int]:
    return [space.special(START["text"]), *text.ids.tolist(), space.special(END["text"])]


@torch.inference_mode()
def _scores(
    model: RowThinker, space: TokenSpace, pairs: Sequence[tuple[Sequence[int], list[int]]]
) -> np.ndarray:
    device = model.rows.row_table.device
    rows = [torch.tensor([*shown, *said], device=device) for shown, said in pairs]
    lengths = torch.tensor([len(row) for row in rows], device=device)
    ids = pad_sequence(rows, batch_first=True)
    hidden = model(ids, AttentionSpec(lengths=lengths)).hidden
    text, end = space.named("TEXT"), space.special(END["text"])
    spans = [(text.start, text.end + 1), (end, end + 1)]
    return np.array(
        [
            _score(model, hidden[k, len(shown) : len(shown) + len(said) - 1], said[1:], spans)
            for k, (shown, said) in enumerate(pairs)
        ]
    )


def _score(
    model: RowThinker, states: Tensor, wanted: list[int], spans: list[tuple[int, int]]
) -> float:
    """Text's start is no choice; from there on each id is text or its end."""
    logits = model.head_slice(states, spans).float()
    (start, stop), _ = spans
    places = [k - start if k < stop else stop - start for k in wanted]
    chosen = F.log_softmax(logits, -1)[torch.arange(len(places)), places]
    return float(chosen.sum())
