"""Audits of a vision tower: retrieval among captions and linear probes of attributes.

Measures, never judges. Costs: one forward of each picture; a ridge regression for each attribute.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lumoomni.data.world.scene import Scene
from lumoomni.data.world.split import COLOURS, SHAPES, SIZES
from lumoomni.gates import Metric, wilson
from lumoomni.train.ridge import solve

ATTRIBUTES: dict[str, tuple[str, ...]] = {"colour": COLOURS, "shape": SHAPES, "size": SIZES}


def recall_at_one(images: Tensor, texts: Tensor) -> dict[str, Metric]:
    """Unit vectors [K, S] of K pictures and their K different captions -> R@1 both ways."""
    scores = images @ texts.T
    right = torch.arange(len(scores))
    to_text = int((scores.argmax(1) == right).sum())
    to_image = int((scores.argmax(0) == right).sum())
    return {
        "image_to_text": wilson(to_text, len(scores)),
        "text_to_image": wilson(to_image, len(scores)),
    }


def probe(
    features: Callable[[Sequence[Scene]], Tensor], train: Sequence[Scene], test: Sequence[Scene]
) -> dict[str, Metric]:
    """Share of right attributes of single things, read by a ridge regression from frozen features.

    `features` maps K scenes to [K, D]; the test scenes are never fitted.
    """
    fit, held = _with_bias(features(train)), _with_bias(features(test))
    out = {}
    for name, values in ATTRIBUTES.items():
        wanted = torch.tensor([values.index(getattr(s.things[0], name)) for s in train])
        targets = torch.nn.functional.one_hot(wanted, len(values)).to(fit.dtype)
        weights = solve(fit, targets, penalty=1e-2 * len(train) ** 0.5)
        found = (held @ weights).argmax(1).numpy()
        truth = np.array([values.index(getattr(s.things[0], name)) for s in test])
        out[name] = wilson(int((found == truth).sum()), len(truth))
    return out


def _with_bias(features: Tensor) -> Tensor:
    double = features.double()
    return torch.cat([double, torch.ones(len(double), 1, dtype=torch.float64)], 1)
