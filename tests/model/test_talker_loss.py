"""Frames that fill a batch up are not learned from."""

import pytest
import torch

from lumoomni import shapes
from lumoomni.model.talker import Script
from lumoomni.shapes import fill_up
from tests import tiny


def test_frames_that_fill_up_change_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    talker = tiny.modules(tiny.text_codec())["talker"].eval()
    config, lengths = talker.config, torch.tensor([5, 3])
    torch.manual_seed(0)
    states = torch.randn(2, 2, 4, config.source_width)
    codes = torch.randint(config.codebook_size, (2, 5, config.codebooks))
    owner, progress = torch.tensor([[0, 0, 1, 2, 3]] * 2), torch.tensor([[0, 1, 0, 0, 0]] * 2)
    found = []
    for step, rows in ((1, 1), (8, shapes.ROWS)):
        monkeypatch.setattr(shapes, "ROWS", rows)
        hidden, embeds = (fill_up(x, 1, step) for x in states)
        script = Script(
            hidden=hidden,
            embeds=embeds,
            owner=fill_up(owner, 1, step),
            progress=fill_up(progress, 1, step),
        )
        found.append(talker.loss(script, fill_up(codes, 1, step), lengths))
    assert found[0].frames == found[1].frames == 8
    torch.testing.assert_close(found[0].codes, found[1].codes)
    torch.testing.assert_close(found[0].advance, found[1].advance)
