"""Positions that learn to say a caption: targets, the two losses, and reading back."""

import pytest
import torch

from lumoomni.model.perceiver import PerceiverConnector, PerceiverConnectorConfig
from lumoomni.train.readout import ReadoutConfig, caption_symbols, read_ids, readout

SYMBOLS, WIDTH, NOTHING = 12, 16, 11


def connector(symbols: int = SYMBOLS) -> PerceiverConnector:
    torch.manual_seed(0)
    made = PerceiverConnector(
        PerceiverConnectorConfig(
            source_width=6,
            target_width=WIDTH,
            latents=5,
            width=8,
            heads=2,
            symbols=symbols,
            nothing=NOTHING,
        )
    )
    if symbols:
        made.take_symbols(torch.randn(symbols, WIDTH))
    made.requires_grad_(False)
    return made


def test_captions_fill_positions_and_long_ones_are_cut() -> None:
    symbols = caption_symbols([[0, 4], [], [1, 2, 3, 4, 5]], 3, 9)
    assert symbols.tolist() == [[0, 4, 9], [9, 9, 9], [1, 2, 3]]


def test_embeddings_themselves_are_near_and_read_back() -> None:
    made = connector()
    assert made.symbol_table is not None
    rows = [[3, 0, 7], [10]]
    symbols = caption_symbols(rows, 5, NOTHING)
    x = made.symbol_table.detach()[symbols]
    found = readout(made, x, symbols, ReadoutConfig())
    assert float(found.near) == 0.0
    assert read_ids(made, x) == rows
    torch.testing.assert_close(made.say(x).detach(), x)
    worse = readout(made, x.roll(1, 0), symbols, ReadoutConfig())
    assert float(worse.near) > 1.0 and float(worse.choice) > float(found.choice)


def test_losses_are_the_formulas() -> None:
    made, config = connector(), ReadoutConfig(nothing=0.25)
    assert made.symbol_table is not None and made.sharpness is not None
    x, symbols = torch.randn(2, 5, WIDTH), caption_symbols([[3, 0], [10, 1, 2]], 5, NOTHING)
    table = made.symbol_table.detach()
    size = table.square().sum(1).mean()
    distance = (x[:, :, None] - table).square().sum(-1)
    scores = -distance / 2 / size * made.sharpness.exp()
    logs = scores.log_softmax(-1)
    choice, near = 0.0, 0.0
    for b in range(2):
        for p in range(5):
            wanted = int(symbols[b, p])
            choice -= float(logs[b, p, wanted]) * (0.25 if wanted == NOTHING else 1.0)
            near += float((x[b, p] - table[wanted]).square().sum() / size)
    found = readout(made, x, symbols, config)
    assert float(found.choice) == pytest.approx(choice, rel=1e-4)
    assert float(found.near) == pytest.approx(near, rel=1e-4)


def test_a_said_position_passes_gradients_as_a_mixture() -> None:
    made = connector()
    x = torch.randn(1, 5, WIDTH, requires_grad=True)
    made.say(x).sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0


def test_without_symbols_nothing_can_be_read() -> None:
    made = connector(0)
    with pytest.raises(ValueError, match="no symbols"):
        made.scores(torch.zeros(1, 5, WIDTH))
    with pytest.raises(ValueError, match="do not fill"):
        made.take_symbols(torch.zeros(3, WIDTH))
    with pytest.raises(ValueError, match="3 embeddings do not fill 12"):
        connector().take_symbols(torch.zeros(3, WIDTH))
