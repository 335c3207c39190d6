"""Sizes are rounded up, never down, and by less than a step; what fills them up is zero."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lumoomni.shapes import ROWS, round_up, whole_rows


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_the_least_multiple_that_is_not_below(size: int, step: int) -> None:
    found = round_up(size, step)
    assert found % step == 0 and size <= found < size + step


@given(st.integers(0, 3 * ROWS), st.integers(0, 4))
def test_rows_stay_and_zeros_follow(count: int, width: int) -> None:
    x = torch.ones(count, width)
    out = whole_rows(x)
    assert out.shape == (round_up(count, ROWS), width)
    assert (out[:count] == 1).all() and not out[count:].any()
    codes = whole_rows(torch.ones(count, width, dtype=torch.long))
    assert codes.dtype == torch.long and codes.shape == out.shape
