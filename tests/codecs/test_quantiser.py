"""Codebooks follow their vectors, restart dead codes, and refuse codes that they do not have."""

from dataclasses import dataclass

import pytest
import torch

from lumoomni.codecs.quantiser import ResidualQuantiser


@dataclass(frozen=True)
class Shape:
    codebooks: int = 1
    codebook_size: int = 4
    code_width: int = 2
    decay: float = 0.5
    restart_below: float = 0.1


CORNERS = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def filled() -> ResidualQuantiser:
    """Codes at the corners, as after some training."""
    quantiser = ResidualQuantiser(Shape())
    for buffer in (quantiser.codebooks, quantiser.sums):
        buffer[0] = CORNERS
    quantiser.started.fill_(True)
    return quantiser


def all_of(vectors: torch.Tensor) -> torch.Tensor:
    return torch.ones(vectors.shape[:2], dtype=torch.bool)


def test_state_keeps_its_names() -> None:
    assert set(ResidualQuantiser(Shape()).state_dict()) == {
        *("codebooks", "usage", "sums", "started")
    }


def test_codes_move_towards_what_they_stand_for() -> None:
    quantiser = filled().train()
    vectors = (CORNERS * 1.5).repeat(1, 1, 1)
    for _ in range(12):
        found = quantiser(vectors, all_of(vectors))
    assert found.codes[0, :, 0].tolist() == [0, 1, 2, 3]
    assert torch.allclose(quantiser.codebooks[0], CORNERS * 1.5, atol=1e-2)
    still = quantiser.codebooks.clone()
    quantiser.eval()(vectors * 2, all_of(vectors))
    assert torch.equal(quantiser.codebooks, still)


def test_a_code_that_is_not_used_starts_anew_from_the_data() -> None:
    torch.manual_seed(0)
    quantiser = filled().train()
    quantiser.codebooks[0, 3] = quantiser.sums[0, 3] = torch.tensor([90.0, 90.0])
    vectors = CORNERS[None]
    for _ in range(6):
        quantiser(vectors, all_of(vectors))
    assert float(quantiser.codebooks.abs().max()) < 1.5
    assert float(quantiser.usage.min()) > 0


def test_masked_vectors_teach_nothing() -> None:
    quantiser = filled().train()
    vectors = torch.cat([CORNERS, torch.full((4, 2), 50.0)])[None]
    quantiser(vectors, torch.arange(8)[None] < 4)
    assert float(quantiser.codebooks.max()) < 2


def test_gradients_pass_straight_through_and_commit() -> None:
    quantiser = filled().eval()
    vectors = (CORNERS * 1.2)[None].requires_grad_()
    found = quantiser(vectors, all_of(vectors))
    assert torch.allclose(found.vectors[0], CORNERS)
    assert float(found.commitment.detach()) == pytest.approx(0.2**2 * 4)
    found.vectors.sum().backward()
    assert vectors.grad is not None and torch.equal(vectors.grad, torch.ones_like(vectors))


def test_a_code_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"codes span 0 to 4, but each codebook has 4"):
        filled().lookup(torch.tensor([[0], [4]]))
