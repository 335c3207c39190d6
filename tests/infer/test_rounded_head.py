"""A head that is read in part chooses as the whole head does, or says that it cannot."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lumoomni.infer.rounded_head as module
from lumoomni.infer.engine import GenerateConfig, generate
from lumoomni.infer.rounded_head import CANDIDATES, choose, pays, round_head
from tests.compiler import needs_compiler
from tests.infer.test_engine import ids_of, make


def parts(full: torch.Tensor) -> tuple[torch.Tensor, ...]:
    head = round_head(full)
    return head.full, head.rows, head.scale, head.slack


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(CANDIDATES + 2, 400),
    width=st.integers(1, 48),
    spread=st.sampled_from([1e-6, 1e-3, 0.05, 1.0]),
    shared=st.sampled_from([0.0, 1.0, 30.0]),
)
def test_when_it_is_sure_it_is_right(
    seed: int, rows: int, width: int, spread: float, shared: float
) -> None:
    """Also where all rows nearly agree, and where rows differ in length by a lot."""
    draw = torch.Generator().manual_seed(seed)
    full = torch.randn(1, width, generator=draw) * shared
    full = full + torch.randn(rows, width, generator=draw) * spread
    full = full * torch.rand(rows, 1, generator=draw).exp()
    hidden = torch.randn(1, width, generator=draw)
    chosen, is_sure = choose(hidden, *parts(full))
    exact = (full.double() @ hidden[0].double()).float()
    if bool(is_sure):
        assert float(exact.max() - exact[chosen]) <= 1e-5 * float(
            hidden.norm() * full.norm(dim=1).max()
        )


def near_equals(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A head of rows that differ by less than eight bits hold, and a hidden state."""
    draw = torch.Generator().manual_seed(seed)
    full = torch.randn(1, 32, generator=draw) + torch.randn(300, 32, generator=draw) * 1e-3
    return full, torch.randn(1, 32, generator=draw)


def test_rows_that_rounding_mixes_up_are_told_apart_by_the_whole_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "compiled", lambda function, device: function)
    missed = 0
    for seed in range(20):
        full, hidden = near_equals(seed)
        best = int((hidden @ full.t()).argmax())
        chosen, is_sure = choose(hidden, *parts(full))
        assert not bool(is_sure)
        missed += int(chosen) != best
        assert int(round_head(full)(hidden)) == best
    assert missed > 5, "the candidates held the best of all anyway, so this shows nothing"


def test_no_logit_is_off_by_more_than_the_slack() -> None:
    torch.manual_seed(0)
    full, hidden = torch.randn(500, 64), torch.randn(20, 64)
    head = round_head(full)
    rough = hidden @ head.rows.float().t() * head.scale
    off = (rough - hidden @ full.t()).abs().amax(1)
    assert bool((off <= hidden.norm(dim=1) * head.slack).all())
    assert float((off / hidden.norm(dim=1)).max()) > 0.1 * float(head.slack)


def test_it_is_sure_of_a_clear_choice_and_not_of_more_equals_than_candidates() -> None:
    torch.manual_seed(0)
    full = torch.randn(300, 32)
    hidden = full[7:8] * 3
    chosen, is_sure = choose(hidden, *parts(full))
    assert bool(is_sure) and chosen.tolist() == [7]
    equal = full.clone()
    equal[100 : 100 + CANDIDATES + 1] = full[7]
    assert not bool(choose(hidden, *parts(equal))[1])
    few = full.clone()
    few[100:103] = full[7]
    chosen, is_sure = choose(hidden, *parts(few))
    assert bool(is_sure) and chosen.tolist() == [7]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_head_that_is_not_finite_is_never_sure(bad: float) -> None:
    full = torch.randn(40, 8)
    full[3, 2] = bad
    assert not bool(choose(torch.ones(1, 8), *parts(full))[1])
    full = torch.randn(40, 8)
    assert not bool(choose(torch.full((1, 8), bad), *parts(full))[1])


def test_empty_rows_are_rounded_without_dividing_by_nothing() -> None:
    full = torch.zeros(40, 8)
    full[5] = 1.0
    chosen, is_sure = choose(torch.ones(1, 8), *parts(full))
    assert bool(is_sure) and chosen.tolist() == [5]


def test_only_large_float32_heads_of_one_sequence_are_rounded() -> None:
    large = torch.empty(1 << 15, 64)
    assert pays(large, 1)
    assert not pays(large, 2)
    assert not pays(large[:100], 1)
    assert not pays(large.bfloat16(), 1)


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sums", [module.SUMS, 1e6])
def test_generation_is_that_of_the_whole_head(sums: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bound that excludes nothing it reads the whole head instead."""
    monkeypatch.setattr(module, "SUMS", sums)
    monkeypatch.setattr(module, "ROUNDED_FROM", 0)
    thinker = make(tied=False)
    prompt, config = ids_of(1, 5), GenerateConfig(max_new_tokens=20)
    found = []
    for compiled in (False, True):
        run = generate(thinker, prompt, config, compiled=compiled)
        list(run)
        found.append(run.ids.tolist())
    assert found[0] == found[1]
