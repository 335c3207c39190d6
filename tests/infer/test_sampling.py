"""Sampling keeps what it says it keeps, and repeats under a seed."""

import pytest
import torch

from lumoomni.infer.sampling import SamplingConfig, keep_top_k, keep_top_p, sample

LOGITS = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]).log()


def kept(logits: torch.Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


def test_top_k_keeps_the_k_largest() -> None:
    assert kept(keep_top_k(LOGITS, 2)) == [[0, 1], [2, 3]]
    assert kept(keep_top_k(LOGITS, 9)) == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize(("p", "count"), [(0.01, 1), (0.49, 1), (0.6, 2), (0.9, 3), (0.96, 4)])
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, count: int) -> None:
    assert kept(keep_top_p(LOGITS, p)) == [list(range(count)), list(range(4 - count, 4))]


def test_greedy_and_seeded() -> None:
    assert sample(LOGITS, SamplingConfig(), None).tolist() == [0, 3]
    config = SamplingConfig(temperature=0.8, top_k=3, top_p=0.95)
    draws = [sample(LOGITS, config, torch.Generator().manual_seed(7)).tolist() for _ in range(3)]
    assert draws[0] == draws[1] == draws[2]


def test_frequencies_follow_the_probabilities() -> None:
    logits = LOGITS[:1].expand(20_000, 4)
    config = SamplingConfig(temperature=1.0)
    ids = sample(logits, config, torch.Generator().manual_seed(0))
    shares = torch.bincount(ids, minlength=4) / 20_000
    # Three standard errors of a share of one half over 20,000 draws are 0.011.
    assert (shares - LOGITS[0].exp()).abs().max() < 0.011


def test_ranges() -> None:
    for bad in ({"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match="must"):
            SamplingConfig(**bad)  # pyright: ignore
