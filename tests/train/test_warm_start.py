"""Connectors that start in the Thinker's own embeddings, exactly where a linear map can."""

import pytest
import torch

from lumoomni.model.audio import AudioTower, AudioTowerConfig
from lumoomni.model.connector import LinearConnector, LinearConnectorConfig
from lumoomni.model.encoder import EncoderConfig
from lumoomni.model.vision import VisionTower, VisionTowerConfig
from lumoomni.train.warm_start import Described, ridge, start_ears, start_eyes

ENCODER = EncoderConfig(width=32, layers=1, heads=2, ffn_width=32)


def test_ridge_finds_a_linear_map() -> None:
    torch.manual_seed(0)
    x, map_, shift = torch.randn(200, 6), torch.randn(3, 6), torch.randn(3)
    weight, bias = ridge(x, x @ map_.T + shift, strength=1e-9)
    assert torch.allclose(weight, map_, atol=1e-4) and torch.allclose(bias, shift, atol=1e-4)


def test_eyes_start_with_the_words_of_their_regions() -> None:
    torch.manual_seed(0)
    tower = VisionTower(VisionTowerConfig(image_size=32, patch=8, encoder=ENCODER)).eval()
    connector = LinearConnector(LinearConnectorConfig(source_width=32, target_width=16, side=2))
    table = torch.randn(9, 16)
    pixels = torch.full((40, 3, 32, 32), -1.0)
    described = []
    for i in range(40):
        cell, word = i % 4, 1 + (i // 4) % 2
        row, column = 16 * (cell // 2), 16 * (cell % 2)
        pixels[i, word, row : row + 16, column : column + 16] = 1.0
        described.append(Described(caption=[word], regions=[([word], [cell])]))
    start_eyes(connector, tower, table, pixels, described)
    with torch.no_grad():
        out = connector.picture(tower(pixels))
    for i in range(8):
        cell, word = i % 4, 1 + i // 4
        scores = out[i] @ table[1:3].T
        assert int(scores[cell].argmax()) + 1 == word
        others = [other for other in range(4) if other != cell]
        assert float(out[i, cell].norm()) > 1.5 * float(out[i, others].norm(dim=1).max())


@torch.no_grad()
def test_ears_start_with_the_embedding_of_what_is_heard() -> None:
    torch.manual_seed(0)
    tower = AudioTower(AudioTowerConfig(n_mels=16, channels=4, symbols=5, encoder=ENCODER)).eval()
    connector = LinearConnector(LinearConnectorConfig(source_width=32, target_width=8, symbols=6))
    table = torch.randn(7, 8)
    start_ears(connector, tower, table, 4)
    out = tower(torch.randn(1, 160, 16) * 3, torch.tensor([160]))
    scores = tower.log_probs(out.features)[0]
    chosen = scores.argmax(-1)
    begins = [t for t, c in enumerate(chosen.tolist()) if c and (t == 0 or c != int(chosen[t - 1]))]
    said = connector.speech(out.features, out.mask)
    for place, frame in enumerate(begins):
        wanted = scores[frame].exp() @ torch.cat([table[4:5], table[:5]])
        assert torch.allclose(said[place], wanted, atol=1e-5)
    assert len(begins) < len(said)
    assert torch.equal(said[len(begins) :], table[4].expand(len(said) - len(begins), -1))


def test_ears_of_another_alphabet_are_refused() -> None:
    tower = AudioTower(AudioTowerConfig(n_mels=16, channels=4, symbols=5, encoder=ENCODER))
    connector = LinearConnector(LinearConnectorConfig(source_width=32, target_width=8, symbols=4))
    with pytest.raises(ValueError, match="spells 4 symbols, but the tower's head has 6"):
        start_ears(connector, tower, torch.randn(7, 8), 0)
