"""The two-block loss equals the softmax over the joined table, in value and in every gradient.

Tolerance: sums of 40 terms of size 5 in float32, as for the plain loss.
"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.model.factors import FactoredRows
from lumoomni.train.row_loss import row_loss, row_token_losses, share_of_rows

BASE, NEW, WIDTH = 11, 7, 8
HOW = (
    st.integers(0, 1000),
    st.sampled_from([1, 3, None]),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([0.1, 1.0, 4.0]),
)
"""Seeds, chunks, shares of the z-loss, scales."""


def case(seed: int = 0, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden, base, rows = (
        (torch.randn(shape, generator=generator) * scale).requires_grad_()
        for shape in ((2, 9, WIDTH), (BASE, WIDTH), (NEW, WIDTH))
    )
    labels = torch.randint(0, BASE + NEW, (2, 9), generator=generator)
    labels[0, 3] = labels[1, 5] = -100
    return hidden, base, rows, labels


def joined(hidden, base, rows, labels, z: float = 0.0) -> torch.Tensor:
    logits = (hidden @ torch.cat([base, rows]).t())[:, :-1].flatten(0, 1)
    targets = labels[:, 1:].flatten()
    loss = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
    return loss + z * logits.logsumexp(-1).square()[targets != -100].sum()


def assert_same(ours: torch.Tensor, want: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    """In value, and in the gradients of half of it."""
    torch.testing.assert_close(ours, want, rtol=1e-5, atol=1e-4)
    slopes = [torch.autograd.grad(one * 0.5, inputs) for one in (ours, want)]
    for mine, theirs in zip(*slopes, strict=True):
        # Logits of a hundred are rounded at 1e-5, whoever multiplies: judged by the largest slope.
        allowed = 3e-5 * max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=allowed)


@settings(max_examples=40)
@given(*HOW)
def test_value_and_gradients_are_those_of_the_joined_softmax(seed, chunk, z, scale) -> None:
    *inputs, labels = case(seed, scale)
    hidden, base, rows = inputs
    ours = row_loss(hidden, labels, base, rows, chunk=chunk, z_loss=z)
    assert ours.count == int((labels[:, 1:] != -100).sum())
    assert_same(ours.total, joined(*inputs, labels, z), inputs)


def test_frozen_base_and_cached_states_give_the_same_rows() -> None:
    hidden, base, rows, labels = case()
    row_loss(hidden, labels=labels, base=base, rows=rows).total.backward()
    whole = rows.grad.clone()
    for state, table in ((hidden.detach(), base.detach()), (hidden, base.detach())):
        rows.grad = None
        row_loss(state, labels, table, rows).total.backward()
        torch.testing.assert_close(rows.grad, whole, rtol=1e-5, atol=1e-6)


@settings(max_examples=40)
@given(*HOW, st.integers(0, 3))
def test_sums_of_parts_are_scored_as_if_all_were_written_out(seed, chunk, z, scale, place) -> None:
    """Three plain rows, around codes of 2 x 2 parts."""
    hidden, base, table, labels = case(seed, scale)
    plain, one, two = (x.detach().clone().requires_grad_() for x in table.split([3, 2, 2]))
    values = torch.cartesian_prod(torch.arange(2), torch.arange(2)).flip(1)
    ours = row_loss(
        hidden,
        labels,
        base,
        FactoredRows(plain, (one, two), place, values),
        chunk=chunk,
        z_loss=z,
    )
    codes = one[values[:, 0]] + two[values[:, 1]]
    want = joined(hidden, base, torch.cat([plain[:place], codes, plain[place:]]), labels, z)
    assert_same(ours.total, want, [hidden, base, plain, one, two])


def test_half_precision_heads_keep_float_sums() -> None:
    hidden, base, rows, labels = case()
    want = joined(hidden, base, rows, labels).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = row_loss(hidden, labels, base, rows)
    got.total.backward()
    assert got.total.dtype == torch.float32 and rows.grad.dtype == torch.float32
    assert abs(float(got.total.detach() - want)) < 0.03 * float(want)


def test_each_position_is_told_and_rows_take_their_share() -> None:
    hidden, base, rows, labels = case()
    each = row_token_losses(hidden, labels, base, rows)
    torch.testing.assert_close(each.sum(), joined(hidden, base, rows, labels).detach())
    assert (each == 0).sum() == 2
    made = row_loss(hidden, labels, base, rows, chunk=3)
    torch.testing.assert_close(made.each, each[labels[:, 1:] != -100])
    assert torch.equal(made.targets, labels[:, 1:][labels[:, 1:] != -100])
    logits = (hidden @ torch.cat([base, rows]).t())[:, :-1].softmax(-1)
    want = logits.detach()[..., BASE:].sum(-1)[labels[:, 1:] != -100]
    share = share_of_rows(hidden, labels, base, rows)
    assert share.count == len(want)
    assert share.total == pytest.approx(float(want.sum()), rel=1e-5)


def test_a_label_past_the_last_row_is_refused() -> None:
    hidden, base, rows, labels = case()
    labels[0, 4] = BASE + NEW
    with pytest.raises(ValueError, match=r"label 18 .* 11 base rows and 7"):
        row_loss(hidden, labels, base, rows)


def test_nothing_to_learn_is_zero() -> None:
    hidden, base, rows, labels = case()
    got = row_loss(hidden, torch.full_like(labels, -100), base, rows)
    got.total.backward()
    assert got.count == 0 and float(got.total.detach()) == 0.0
