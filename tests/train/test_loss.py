"""The chunked loss equals the naive one, in value and gradient, and shifts as it says.

Tolerance: sums of 40 terms of size 5 in float32; 2e-5 was the worst seen, 1e-4 is allowed.
"""

import pytest
import torch
import torch.nn.functional as F

from lumoomni.train.loss import lm_loss, token_losses

SEEN = torch.tensor([[5, 3, -100, 7, 1, 2], [-100, -100, 4, 4, -100, 0]])


def case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 6, 8, generator=generator).requires_grad_()
    return hidden, torch.randn(11, 8, generator=generator).requires_grad_()


def naive(hidden: torch.Tensor, head: torch.Tensor, z: float = 0.0) -> torch.Tensor:
    logits = (hidden @ head.t())[:, :-1].flatten(0, 1)
    targets = SEEN[:, 1:].flatten()
    loss = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
    return loss + z * logits.logsumexp(-1).square()[targets != -100].sum()


@pytest.mark.parametrize("chunk", [1, 3, None])
@pytest.mark.parametrize("z", [0.0, 0.1])
def test_equals_the_naive_loss_and_gradients(chunk: int | None, z: float) -> None:
    hidden, head = case()
    ours = lm_loss(hidden, SEEN, head, chunk=chunk, z_loss=z)
    (ours.total * 0.5).backward()
    got = hidden.grad, head.grad
    hidden.grad = head.grad = None
    want = naive(hidden, head, z)
    (want * 0.5).backward()
    assert ours.count == 7
    assert abs(ours.total.item() - want.item()) < 1e-4
    for a, b in zip(got, (hidden.grad, head.grad), strict=True):
        assert a is not None and b is not None
        assert (a - b).abs().max() < 1e-4


def test_labels_are_shifted_here_and_nowhere_else() -> None:
    head = torch.eye(11, 8) * 50
    hidden = torch.zeros(1, 3, 8)
    hidden[0, 0, 4] = hidden[0, 1, 2] = 1.0  # position 0 says 4, position 1 says 2
    assert lm_loss(hidden, torch.tensor([[9, 4, 2]]), head).total.item() < 1e-6


def test_frozen_head_and_frozen_hidden_get_no_gradient() -> None:
    hidden, head = case()
    lm_loss(hidden, SEEN, head.detach()).total.backward()
    assert hidden.grad is not None
    lm_loss(hidden.detach(), SEEN, head).total.backward()
    assert head.grad is not None


def test_nothing_supervised_is_zero_and_differentiable() -> None:
    hidden, head = case()
    loss = lm_loss(hidden, torch.full_like(SEEN, -100), head)
    loss.mean().backward()
    assert loss.count == 0 and loss.total.item() == 0
    assert head.grad is not None and head.grad.abs().max() == 0


def test_rare_targets_do_not_overflow() -> None:
    hidden = torch.zeros(1, 2, 2)
    hidden[0, 0, 0] = 1.0
    head = torch.tensor([[400.0, 0.0], [-400.0, 0.0]])
    loss = lm_loss(hidden, torch.tensor([[0, 1]]), head).total
    assert loss.item() == pytest.approx(800.0)


def test_bfloat16_autocast_stays_close() -> None:
    hidden, head = case()
    exact = lm_loss(hidden, SEEN, head).total.item()
    with torch.autocast("cpu", torch.bfloat16):
        rough = lm_loss(hidden, SEEN, head).total.item()
    assert rough == pytest.approx(exact, rel=0.02)  # bfloat16 rounds logits to 1 part in 256


def test_per_token_losses_sum_to_the_total() -> None:
    hidden, head = case()
    each = token_losses(hidden, SEEN, head)
    assert each.shape == (2, 5)
    assert each.sum().item() == pytest.approx(lm_loss(hidden, SEEN, head).total.item(), rel=1e-5)
    assert (each[SEEN[:, 1:] == -100] == 0).all()


def test_wrong_shapes_are_refused() -> None:
    hidden, head = case()
    with pytest.raises(ValueError, match="do not fit"):
        lm_loss(hidden, SEEN[:, :4], head)
