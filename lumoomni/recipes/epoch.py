"""An epoch that takes as long as is wanted: how many updates fit into an hour.

Knows: durations as people write them (`1h`, `1h30m`, `90s`), and a division.
Does not know: where the rate comes from, measured or estimated. Costs: nothing.
"""

import re
from dataclasses import dataclass

from lumoomni.errors import InputError

DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """`updates` of one stage, `samples` in all, that take `seconds`; `rate` says whose rate."""

    stage: str
    updates: int
    samples: int
    seconds: float
    rate: str

    @property
    def setting(self) -> str:
        """The override that makes the stage so long."""
        return f"{self.stage}.loop.steps={self.updates}"


def seconds_of(text: str) -> float:
    """`1h`, `30m`, `90s` or `1h30m` in seconds. Raises InputError for anything else, and for 0."""
    found = DURATION.fullmatch(text.strip().lower())
    parts = [float(part) if part else 0.0 for part in found.groups()] if found else []
    seconds = sum(part * size for part, size in zip(parts, (3600, 60, 1), strict=False))
    if seconds <= 0:
        raise InputError(f"--epoch {text!r} is no duration; write 1h, 30m, 90s or 1h30m")
    return seconds


def size_epoch(
    stage: str, *, wanted: float, update: float, samples: int, rate: str = "measured"
) -> Epoch:
    """As many updates of `update` seconds and `samples` as fit into `wanted` seconds.

    Raises InputError when not one fits.
    """
    updates = int(wanted / update)
    if updates < 1:
        raise InputError(
            f"one update of {stage} takes {update:.1f} s, longer than an epoch of {wanted:.0f} s; "
            f"give a longer --epoch, or lower {stage}.loop.batch_size or accumulate"
        )
    return Epoch(
        stage=stage, updates=updates, samples=updates * samples, seconds=updates * update, rate=rate
    )
