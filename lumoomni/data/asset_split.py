"""Which side of a split a medium stands on: decided by its bytes, or by the data set's own split.

The rule: the first 8 bytes, big-endian, of SHA-256 of the asset's own SHA-256 (64 lower-case hex
digits in ASCII), mod 1000; below 1000 x share (10 for 1 %) is `eval`. A renamed copy has the same
bytes and so the same side, and so have all captions of one clip.
What a data set itself holds out is never trained on, whatever the rule says.
Does not know: files. Costs: one short hash an asset.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lumoomni.config import nearest
from lumoomni.errors import InputError

Side = Literal["train", "eval"]
EVAL_SHARE = 0.01
PARTS = 1000
SHA256 = re.compile(r"[0-9a-f]{64}")

OFFICIAL: dict[str, Side] = {
    "development": "train",
    "validation": "eval",
    "evaluation": "eval",
    "train": "train",
    "val": "eval",
    "test": "eval",
    "train2014": "train",
    "val2014": "eval",
    "train2017": "train",
    "val2017": "eval",
    "train-clean-100": "train",
    "train-clean-360": "train",
    "train-other-500": "train",
    "dev-clean": "eval",
    "dev-other": "eval",
    "test-clean": "eval",
    "test-other": "eval",
    "train-clean-5": "train",
    "dev-clean-2": "eval",
    "seen": "eval",
    "unseen": "eval",
}
"""Splits that data sets come with: what may be trained on, and what they hold out."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Bytes that a data set has both in a split for training and in one that it holds out."""

    sha256: str
    officials: tuple[str, ...]
    ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.sha256[:12]}... in {' and '.join(self.officials)}: {', '.join(self.ids)}"


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The side of each asset by its hash, and the assets that stand on two official sides."""

    of: dict[str, Side]
    leaks: tuple[Leak, ...]


def asset_split(asset_sha256: str, eval_share: float = EVAL_SHARE) -> Side:
    """`train` or `eval` by the rule above.

    Raises InputError for what is no SHA-256, and for a share that is no whole number of thousandths
    from 0 to 1: it would silently become another one.
    """
    if not SHA256.fullmatch(asset_sha256):
        raise InputError(
            f"{asset_sha256[:80]!r} is no SHA-256; an asset is named by 64 lower-case hex digits"
        )
    digest = hashlib.sha256(asset_sha256.encode("ascii")).digest()
    place = int.from_bytes(digest[:8], "big") % PARTS
    return "eval" if place < eval_parts(eval_share) else "train"


def eval_parts(eval_share: float) -> int:
    """How many of 1000 parts are held out. Raises InputError as `asset_split` does."""
    parts = round(eval_share * PARTS) if 0 <= eval_share <= 1 else -1
    if parts < 0 or abs(parts - eval_share * PARTS) > 1e-6:
        raise InputError(
            f"eval_share is {eval_share}; it must be from 0 to 1 in whole thousandths (0.01 is 1 %)"
        )
    return parts


def held_out(official: str) -> bool:
    """Whether a data set's own split is one that it holds out; "" is no split of its own.

    Raises InputError for a name that is not known: its data might be trained on by mistake.
    """
    if official and official not in OFFICIAL:
        raise InputError(f"there is no official split {official!r}; {nearest(official, OFFICIAL)}")
    return bool(official) and OFFICIAL[official] == "eval"


def sides(assets: Iterable[tuple[str, str, str]], eval_share: float = EVAL_SHARE) -> Sides:
    """The side of each asset, from (id, sha256, official split) of each record in any order.

    An asset that any record holds out is `eval` for all of them. Raises InputError as above.
    """
    officials: dict[str, set[str]] = {}
    ids: dict[str, list[str]] = {}
    for name, sha256, official in assets:
        officials.setdefault(sha256, set()).add(official)
        ids.setdefault(sha256, []).append(name)
    of: dict[str, Side] = {}
    leaks = []
    for sha256 in sorted(officials):
        names = sorted(officials[sha256] - {""})
        out = {held_out(name) for name in names}
        of[sha256] = "eval" if True in out else asset_split(sha256, eval_share)
        if len(out) > 1:
            leaks.append(
                Leak(sha256=sha256, officials=tuple(names), ids=tuple(sorted(ids[sha256])))
            )
    return Sides(of=of, leaks=tuple(leaks))
