"""A gate passes only on a finite, sufficient, measured number that holds; nothing by accident."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumoomni.gates import (
    Check,
    Metric,
    Report,
    bootstrap_mean,
    bootstrap_ratio,
    checks_from_dict,
    checks_to_dict,
    judge,
    wilson,
)

OPS = st.sampled_from([">=", "<=", ">", "<", "=="])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


def report(value: float, n: int = 100) -> Report:
    return Report(metrics={"m": Metric(value=value, n=n)})


@given(OPS, NUMBERS, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_what_is_not_a_number_never_passes(op: str, threshold: float, value: float) -> None:
    assert not judge(report(value), [Check(metric="m", op=op, threshold=threshold, why="")]).passed


@given(OPS, NUMBERS, NUMBERS)
def test_missing_or_too_few_never_pass(op: str, threshold: float, value: float) -> None:
    missing = Check(metric="other", op=op, threshold=threshold, why="")
    few = Check(metric="m", op=op, threshold=threshold, why="", min_n=101)
    assert not judge(report(value), [missing]).passed
    assert not judge(report(value), [few]).passed
    assert not judge(
        report(value, n=0), [Check(metric="m", op=op, threshold=threshold, why="")]
    ).passed


def test_no_check_is_no_proof() -> None:
    verdict = judge(report(1.0), [])
    assert not verdict.passed
    assert "no check" in verdict.failures()[0]


def test_the_sentence_names_number_and_threshold() -> None:
    check = Check(metric="m", op="<=", threshold=0.1, why="words must be understood")
    (sentence,) = judge(report(0.14, n=200), [check]).failures()
    assert sentence == "m is 0.14 (n=200), but needed <= 0.1: words must be understood"


def test_a_threshold_may_be_a_multiple_of_another_metric() -> None:
    both = Report(metrics={"wrong": Metric(value=0.6, n=50), "right": Metric(value=0.1, n=50)})
    check = Check(metric="wrong", op=">=", threshold=5.0, times="right", why="")
    assert judge(both, [check]).passed
    worse = Report(metrics={**both.metrics, "right": Metric(value=0.13, n=50)})
    assert not judge(worse, [check]).passed
    alone = Report(metrics={"wrong": both.metrics["wrong"]})
    assert not judge(alone, [check]).passed


def test_a_bound_can_be_demanded() -> None:
    unsure = Report(metrics={"m": Metric(value=0.2, n=9, low=-0.1, high=0.5)})
    check = Check(metric="m", op=">", threshold=0, why="", bound="low")
    assert not judge(unsure, [check]).passed
    assert judge(unsure, [Check(metric="m", op=">", threshold=0, why="")]).passed
    assert not judge(report(1.0), [check]).passed  # no interval was measured


def test_wilson_against_known_values() -> None:
    metric = wilson(9, 10)
    assert metric.low == pytest.approx(0.5958, abs=1e-3)
    assert metric.high == pytest.approx(0.9821, abs=1e-3)
    assert math.isnan(wilson(0, 0).value)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30))
def test_bootstrap_brackets_the_mean(values: list[float]) -> None:
    metric = bootstrap_mean(values)
    assert metric.low is not None and metric.high is not None
    assert metric.low - 1e-9 <= metric.value <= metric.high + 1e-9
    assert metric.value == pytest.approx(sum(values) / len(values))


def test_bootstrap_ratio_is_weighted() -> None:
    assert bootstrap_ratio([1, 0], [1, 9]).value == pytest.approx(0.1)
    assert math.isnan(bootstrap_ratio([], []).value)


def test_reports_and_checks_survive_json() -> None:
    found = Report(
        metrics={"a": Metric(value=math.nan, n=0), "b": Metric(value=1.5, n=3, low=1, high=2)},
        notes={"k": "v"},
    )
    back = Report.from_dict(found.to_dict())
    assert math.isnan(back.metrics["a"].value)
    assert back.metrics["b"] == found.metrics["b"]
    checks = (Check(metric="a", op=">", threshold=1.0, why="w", times="b", bound="low"),)
    assert checks_from_dict(checks_to_dict(checks)) == checks
