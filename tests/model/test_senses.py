"""Towers, connectors and the scatter: padding is invisible and counts are compared."""

import pytest
import torch

from lumoomni.ids import AUDIO_FRAME, IMAGE_PATCH
from lumoomni.model.audio import AudioTower, ctc_greedy, ctc_needs, feature_count
from lumoomni.model.connector import LinearConnector, LinearConnectorConfig
from lumoomni.model.omni import OmniInputs, OmniModel, scatter
from lumoomni.model.vision import VisionFeatures, VisionTower, VisionTowerConfig
from tests.tiny import modules, text_codec

PARTS = modules(text_codec())
for part in PARTS.values():
    part.eval()
AUDIO: AudioTower = PARTS["audio"]  # type: ignore[assignment]


def omni() -> OmniModel:
    names = ("vision", "image_connector", "audio", "audio_connector")
    return OmniModel(PARTS["thinker"], **{n: PARTS[n] for n in names}).eval()  # type: ignore


@torch.no_grad()
def test_audio_padding_is_invisible() -> None:
    mel = torch.randn(1, 77, 80)
    alone = AUDIO(mel, torch.tensor([77]))
    padded = torch.cat([mel, torch.randn(1, 60, 80) * 9], 1)
    both = AUDIO(torch.cat([padded, torch.randn(1, 137, 80)]), torch.tensor([77, 137]))
    count = feature_count(77)
    assert alone.lengths.tolist() == [count] and both.lengths.tolist() == [count, 18]
    assert torch.allclose(both.features[0, :count], alone.features[0], atol=1e-5)


@torch.no_grad()
def test_audio_knows_order() -> None:
    mel = torch.randn(1, 80, 80)
    there = AUDIO(mel, torch.tensor([80])).features.mean(1)
    back = AUDIO(mel.flip(1), torch.tensor([80])).features.mean(1)
    assert not torch.allclose(there, back, atol=1e-3)


def test_too_long_a_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="exceed the tower's 1500"):
        AUDIO(torch.zeros(1, 12008, 80), torch.tensor([12008]))


def test_ctc_reads_best_paths_and_counts_frames() -> None:
    path = torch.tensor([[0, 3, 3, 0, 3, 2, 0]])
    scores = torch.nn.functional.one_hot(path, 5).float().log()
    assert ctc_greedy(scores, torch.tensor([7])) == [[2, 2, 1]]
    assert ctc_greedy(scores, torch.tensor([2])) == [[2]]
    assert ctc_needs([1, 1, 2]) == 4 and ctc_needs([]) == 0


def test_pictures_must_fit_the_tower() -> None:
    tower = VisionTower(
        VisionTowerConfig(
            image_size=32, patch=8, stem="conv", encoder=PARTS["vision"].config.encoder
        )
    )
    out = tower(torch.zeros(2, 3, 32, 32))
    assert out.cls.shape == (2, 32) and out.patches.shape == (2, 16, 32)
    with pytest.raises(ValueError, match=r"reads \[B, 3, 32, 32\], got \[1, 3, 16, 16\]"):
        tower(torch.zeros(1, 3, 16, 16))


@torch.no_grad()
def test_the_connector_pools_where_things_are() -> None:
    connector = LinearConnector(LinearConnectorConfig(source_width=32, target_width=8, side=2))
    tower: VisionTower = PARTS["vision"]  # type: ignore[assignment]
    features = tower(torch.randn(1, 3, 32, 32))
    corner = features.patches[0].view(4, 4, 32)[:2, 2:].mean((0, 1))
    assert torch.allclose(connector.picture(features)[0, 1], connector(corner), atol=1e-5)
    odd = LinearConnector(LinearConnectorConfig(source_width=32, target_width=8, side=3))
    with pytest.raises(ValueError, match="does not pool to 3 x 3"):
        odd.picture(features)


def test_scatter_fills_in_reading_order_and_compares_counts() -> None:
    ids = torch.tensor([[5, IMAGE_PATCH, 6], [IMAGE_PATCH, 7, IMAGE_PATCH]])
    features = torch.arange(3.0)[:, None].expand(3, 4) + 1
    out = scatter(torch.zeros(2, 3, 4), ids, IMAGE_PATCH, features, "image")
    assert out[..., 0].tolist() == [[0, 1, 0], [2, 0, 3]]
    with pytest.raises(ValueError, match="3 image placeholders but 2 image features"):
        scatter(torch.zeros(2, 3, 4), ids, IMAGE_PATCH, features[:2], "image")
    with pytest.raises(ValueError, match="3 image placeholders but 0 image"):
        scatter(torch.zeros(2, 3, 4), ids, IMAGE_PATCH, None, "image")


@torch.no_grad()
def test_each_picture_and_clip_reaches_its_own_row() -> None:
    model = omni()
    ids = torch.full((2, 12), 5)
    ids[0, 1:5], ids[1, 3:7] = IMAGE_PATCH, IMAGE_PATCH
    ids[0, 6:8], ids[1, 8:11] = AUDIO_FRAME, AUDIO_FRAME
    pixels, mels = torch.randn(2, 3, 32, 32), torch.randn(2, 24, 80)
    lengths = torch.tensor([16, 24])

    def hidden(pixels: torch.Tensor, mels: torch.Tensor) -> torch.Tensor:
        inputs = OmniInputs(
            ids=ids,
            lengths=torch.tensor([12, 12]),
            pixels=pixels,
            mels=mels,
            mel_lengths=lengths,
        )
        return model(inputs).hidden

    base = hidden(pixels, mels)
    other_picture, other_sound = pixels.clone(), mels.clone()
    other_picture[1] += 1
    other_sound[0] += 1
    by_picture, by_sound = hidden(other_picture, mels), hidden(pixels, other_sound)
    assert torch.equal(base[0], by_picture[0]) and not torch.equal(base[1], by_picture[1])
    assert torch.equal(base[1], by_sound[1]) and not torch.equal(base[0], by_sound[0])
    assert torch.equal(base[1, :3], by_picture[1, :3])


def test_parts_that_do_not_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="must come together"):
        OmniModel(PARTS["thinker"], vision=PARTS["vision"])  # type: ignore[arg-type]
    wrong = LinearConnector(LinearConnectorConfig(source_width=31, target_width=32))
    with pytest.raises(ValueError, match="32 wide, but its connector reads 31"):
        OmniModel(PARTS["thinker"], vision=PARTS["vision"], image_connector=wrong)  # type: ignore
    blind = OmniModel(PARTS["thinker"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no vision tower"):
        blind.image_features(torch.zeros(1, 3, 32, 32))


@torch.no_grad()
def test_places_say_row_and_column() -> None:
    connector = LinearConnector(
        LinearConnectorConfig(source_width=4, target_width=8, side=3, places=True)
    )
    connector.scale_places(0.5)
    flat = VisionFeatures(torch.zeros(1, 4), torch.zeros(1, 9, 4))
    places = (connector.picture(flat)[0] - connector.project.bias).view(3, 3, 8)
    row_step, column_step = places[1] - places[0], places[:, 1] - places[:, 0]
    assert torch.allclose(row_step[0], row_step[2], atol=1e-5)
    assert torch.allclose(column_step[0], column_step[2], atol=1e-5)
    assert float(row_step.abs().max()) > 0.1
    assert abs(float(connector.row_table.square().mean().sqrt()) - 0.5) < 1e-4  # pyright: ignore


@torch.no_grad()
def test_spelled_frames_come_first_and_none_is_lost() -> None:
    connector = LinearConnector(LinearConnectorConfig(source_width=3, target_width=3, symbols=3))
    assert connector.spell is not None and connector.symbol_table is not None
    connector.spell.weight.copy_(torch.eye(3) * 50)
    connector.spell.bias.zero_()
    connector.symbol_table.copy_(torch.tensor([[0.0] * 3, [10.0, 0, 0], [20.0, 0, 0]]))
    connector.project.weight.zero_()
    connector.project.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    blank, one, two = torch.eye(3)
    clips = torch.stack(
        [torch.stack([blank, one, one, blank, two]), torch.stack([two, blank, two, one, one])]
    )
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    out = connector.speech(clips, mask)
    assert out[:, 0].tolist() == [10.0, 20.0, 0.0, 0.0, 0.0, 20.0, 20.0, 0.0]
    assert out[:, 1].tolist() == [1.0] * 8
