"""Gates: a report of numbers, checks on them, and a verdict. Standard library only.

Knows: counts, confidence intervals, thresholds with their reasons.
Does not know: models or data. Audits measure and never judge; this file judges and never measures.
A missing number, NaN, too few samples or no check at all fails: nothing passes by accident.
"""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Op = Literal[">=", "<=", ">", "<", "=="]
Z95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measured number over `n` items; low and high are its 95 % confidence interval."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.value:.4g}{interval} (n={self.n})"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Numbers by name, and short notes for a person."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe; NaN and infinities become strings, so that the file stays valid JSON."""
        metrics = {
            name: {key: _safe(value) for key, value in asdict(metric).items()}
            for name, metric in self.metrics.items()
        }
        return {"metrics": metrics, "notes": dict(self.notes)}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "Report":
        """The inverse of `to_dict`."""
        metrics = {
            name: Metric(
                value=float(item["value"]),
                n=int(item["n"]),
                low=None if item.get("low") is None else float(item["low"]),
                high=None if item.get("high") is None else float(item["high"]),
            )
            for name, item in data["metrics"].items()
        }
        return Report(metrics=metrics, notes=dict(data.get("notes", {})))


@dataclass(frozen=True, kw_only=True)
class Check:
    """One demand on one metric. With `times`, the threshold is multiplied by that metric.

    `bound` says which number must satisfy it: the value, or an end of its interval.
    """

    metric: str
    op: Op
    threshold: float
    why: str
    min_n: int = 1
    times: str | None = None
    bound: Literal["value", "low", "high"] = "value"


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """How one check went; `value` is None when there was no usable number."""

    check: Check
    passed: bool
    value: float | None
    limit: float | None
    n: int
    reason: str

    def explain(self) -> str:
        """One sentence: what was measured, what was needed, and why."""
        if self.reason:
            return f"{self.check.metric}: {self.reason} ({self.check.why})"
        which = "" if self.check.bound == "value" else f" ({self.check.bound} end of its 95 % CI)"
        word = "needed" if self.passed else "but needed"
        return (
            f"{self.check.metric}{which} is {self.value:.4g} (n={self.n}), {word} "
            f"{self.check.op} {self.limit:.4g}: {self.check.why}"
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Passed only if there was at least one check and every one held."""

    passed: bool
    results: tuple[CheckResult, ...]

    def failures(self) -> tuple[str, ...]:
        """One sentence for each check that did not hold."""
        if not self.results:
            return ("no check was made, so nothing was proven",)
        return tuple(result.explain() for result in self.results if not result.passed)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        results = []
        for result in self.results:
            item = {key: _safe(value) for key, value in asdict(result).items() if key != "check"}
            results.append({"check": asdict(result.check), **item})
        return {"passed": self.passed, "results": results}


def judge(report: Report, checks: Iterable[Check]) -> Verdict:
    """Hold every check against the report; pure."""
    results = tuple(_judge_one(report, check) for check in checks)
    return Verdict(passed=bool(results) and all(r.passed for r in results), results=results)


def checks_from_dict(data: Iterable[dict[str, Any]]) -> tuple[Check, ...]:
    """Checks as stored in a manifest."""
    return tuple(Check(**item) for item in data)


def checks_to_dict(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """Checks to be stored in a manifest."""
    return [asdict(check) for check in checks]


def _judge_one(report: Report, check: Check) -> CheckResult:
    metric = report.metrics.get(check.metric)
    limit, reason, value, n = check.threshold, "", None, 0
    if check.times is not None:
        factor = report.metrics.get(check.times)
        if factor is None or not math.isfinite(factor.value) or factor.n < 1:
            reason = f"cannot be compared, {check.times} was not measured"
        else:
            limit = check.threshold * factor.value
    if metric is None:
        reason = "was not measured"
    else:
        n = metric.n
        value = {"value": metric.value, "low": metric.low, "high": metric.high}[check.bound]
        if value is None:
            reason = "has no confidence interval"
        elif not math.isfinite(value):
            reason, value = f"is {value}, not a number", None
        elif n < check.min_n:
            reason = f"was measured on {n} items, needed at least {check.min_n}"
    passed = not reason and value is not None and _holds(value, check.op, limit)
    return CheckResult(check=check, passed=passed, value=value, limit=limit, n=n, reason=reason)


def _holds(value: float, op: Op, limit: float) -> bool:
    return {
        ">=": value >= limit,
        "<=": value <= limit,
        ">": value > limit,
        "<": value < limit,
        "==": value == limit,
    }[op]


def _safe(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def wilson(successes: int, n: int) -> Metric:
    """A share with Wilson's 95 % interval (doi 10.1080/01621459.1927.10502953); NaN for n = 0."""
    if n == 0:
        return Metric(value=math.nan, n=0)
    share = successes / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    return Metric(value=share, n=n, low=max(0.0, centre - half), high=min(1.0, centre + half))


def bootstrap_mean(values: Sequence[float], *, seed: int = 0, rounds: int = 1000) -> Metric:
    """A mean with its bootstrap 95 % interval; with paired differences this is the paired test."""
    return bootstrap_ratio(values, [1.0] * len(values), seed=seed, rounds=rounds)


def bootstrap_ratio(
    tops: Sequence[float], bottoms: Sequence[float], *, seed: int = 0, rounds: int = 1000
) -> Metric:
    """sum(tops) / sum(bottoms) with a bootstrap interval over items, for example a corpus WER."""
    n = len(tops)
    if n != len(bottoms):
        raise ValueError(f"{n} numerators but {len(bottoms)} denominators; they must pair up")
    if n == 0 or sum(bottoms) == 0:
        return Metric(value=math.nan, n=0)
    source = random.Random(seed)
    draws = []
    for _ in range(rounds):
        picks = source.choices(range(n), k=n)
        bottom = sum(bottoms[i] for i in picks)
        if bottom:
            draws.append(sum(tops[i] for i in picks) / bottom)
    draws.sort()
    low, high = (draws[int(share * (len(draws) - 1))] for share in (0.025, 0.975))
    return Metric(value=sum(tops) / sum(bottoms), n=n, low=low, high=high)


def exact(value: float, n: int = 1) -> Metric:
    """A number that is not a sample estimate, such as a count or a largest difference."""
    return Metric(value=float(value), n=n)
