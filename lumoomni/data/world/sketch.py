"""Scenes as one draws them: on one grey sheet, upright, in just the colours that have names.

Knows: how a scene is painted. Does not know: words, or who learns from it.
Costs: less than `draw`, which makes a ground too.

Pictures that are looked at have grounds, grain, tints and tilts, so that eyes do not mind them. No
request names any of these. Whoever learns to draw from such pictures learns their chance first:
two nats of the six and a half that a cell's code says are the ground's (LOG.md).
"""

from dataclasses import replace

import numpy as np

from lumoomni.data.world.scene import Scene, paint

SHEET = 153.0


def sketch(scene: Scene, size: int = 64) -> np.ndarray:
    """The picture, uint8[size, size, 3]."""
    canvas = np.full((size, size, 3), SHEET, dtype=np.float32)
    for thing in scene.things:
        paint(canvas, replace(thing, angle=0.0, tint=(0, 0, 0)), size)
    return (np.clip(canvas, 0.0, 255.0) + 0.5).astype(np.uint8)
