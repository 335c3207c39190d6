"""Regions: found where they are, read in order, silent where nothing is, and learned from words."""

import pytest
import torch

from lumoomni.model.connector import LinearConnector, LinearConnectorConfig
from lumoomni.model.encoder import EncoderConfig
from lumoomni.model.regions import (
    IGNORE,
    STANDS,
    RegionReader,
    RegionReaderConfig,
    expect_words,
    region_losses,
    stands,
    take_patches,
)
from lumoomni.model.vision import VisionFeatures, VisionTower, VisionTowerConfig
from lumoomni.train.warm_start import take_reader

GRID, WIDTH, SYMBOLS = 4, 8, 5


def reader() -> RegionReader:
    """Channel 0 says that a thing is centred; channel c > 0 that both words are class c."""
    made = RegionReader(RegionReaderConfig(width=WIDTH, symbols=SYMBOLS, words=2))
    made.norm = torch.nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        made.centre.weight.zero_()
        made.centre.weight[0, 0] = 1.0
        made.words.weight.zero_()
        made.words.bias.zero_()
        for place in range(2):
            for c in range(1, SYMBOLS + 1):
                made.words.weight[place * (SYMBOLS + 1) + c, c] = 50.0
    return made


def picture(*things: tuple[int, int, float, int]) -> torch.Tensor:
    """patches [1, N, D] with things (row, column, strength, class)."""
    patches = torch.zeros(1, GRID * GRID, WIDTH)
    for row, column, strength, c in things:
        patches[0, row * GRID + column, 0] = strength
        patches[0, row * GRID + column, c] = 1.0
    return patches


def test_things_are_found_from_left_to_right_and_the_missing_come_last() -> None:
    patches = picture((3, 2, 9.0, 2), (0, 0, 8.0, 1), (1, 2, 20.0, 3))
    found = reader().find(patches, 4)
    assert found.found.tolist() == [[True, True, True, False]]
    assert found.patch[0, :3].tolist() == [0, 6, 14]
    assert reader().read(patches, 4) == [[[0, 0], [2, 2], [1, 1]]]


def test_the_weaker_of_two_neighbours_is_no_thing_of_its_own() -> None:
    both = picture((1, 1, 9.0, 1), (1, 2, 8.0, 2))
    assert reader().read(both, 4) == [[[0, 0]]]
    assert reader().read(picture((1, 1, 1.0, 1)), 4) == [[]]  # log-odds 1 - 3.5


def test_only_as_many_as_wanted_and_never_more_than_there_are() -> None:
    patches = picture((0, 0, 8.0, 1), (0, 2, 9.0, 2), (2, 0, 7.0, 3), (2, 2, 6.0, 4))
    assert reader().read(patches, 2) == [[[0, 0], [1, 1]]]
    with pytest.raises(ValueError, match="at least 17"):
        reader().find(patches, 17)


def test_untold_words_teach_nothing() -> None:
    made = RegionReader(RegionReaderConfig(width=WIDTH, symbols=SYMBOLS, words=2))
    patches, centred = torch.randn(1, 16, WIDTH), torch.zeros(1, 16, dtype=torch.bool)
    centred[0, 3] = True
    covered = torch.tensor([[0, 3]])
    _, loss = region_losses(made, patches, centred, covered, torch.tensor([[2, IGNORE]]))
    loss.backward()
    rows = made.words.weight.grad
    assert rows is not None
    assert float(rows[: SYMBOLS + 1].abs().max()) > 0
    assert float(rows[SYMBOLS + 1 :].abs().max()) == 0


def test_a_reader_learns_where_and_what() -> None:
    torch.manual_seed(0)
    made = RegionReader(RegionReaderConfig(width=32, symbols=3, words=2))
    marks = torch.randn(3, 32) * 4
    expect_words(made, torch.tensor([[1, 0], [2, 0], [3, IGNORE]]))
    optimiser = torch.optim.Adam(made.parameters(), lr=0.05)

    def some(count: int) -> tuple[torch.Tensor, ...]:
        place, kind = torch.randint(16, (count,)), torch.randint(3, (count,))
        patches = torch.randn(count, 16, 32)
        patches[torch.arange(count), place] += marks[kind]
        centred = torch.zeros(count, 16, dtype=torch.bool)
        centred[torch.arange(count), place] = True
        covered = torch.stack([torch.arange(count), place], 1)
        return patches, centred, covered, torch.stack([kind + 1, torch.zeros_like(kind)], 1)

    for _ in range(150):
        where, words = region_losses(made, *some(32))  # type: ignore[arg-type]
        optimiser.zero_grad()
        (where + words).backward()
        optimiser.step()
    patches, _, covered, classes = some(50)
    said = made.read(patches, 3)
    right = [row == [[int(c) - 1]] for row, c in zip(said, classes[:, 0], strict=True)]
    assert sum(right) >= 45
    assert bool((made.find(patches, 1).patch[:, 0] == covered[:, 1]).float().mean() > 0.95)


def config(regions: int = 3) -> LinearConnectorConfig:
    return LinearConnectorConfig(
        source_width=WIDTH,
        target_width=6,
        places=True,
        symbols=SYMBOLS + 1,
        regions=regions,
        words=2,
        grid=GRID,
    )


@torch.no_grad()
def test_a_connector_says_each_thing_in_words_and_place() -> None:
    torch.manual_seed(0)
    made, table = LinearConnector(config()), torch.randn(9, 6)
    assert made.reader is not None and made.symbol_table is not None
    made.reader.load_state_dict(reader().state_dict(), strict=False)
    made.reader.norm = torch.nn.Identity()  # type: ignore[assignment]
    made.reader.words.weight.mul_(0.02)  # barely sure, and still one word and no mixture
    made.symbol_table[0], made.symbol_table[1:] = 0.0, table[:SYMBOLS]
    torch.nn.init.zeros_(made.project.weight)
    torch.nn.init.zeros_(made.project.bias)
    patches = picture((3, 2, 9.0, 2), (0, 0, 8.0, 1))
    out = made.picture(VisionFeatures(torch.randn(1, WIDTH), patches))
    assert tuple(out.shape) == (1, made.config.positions, 6) == (1, 10, 6)
    assert made.row_table is not None and made.column_table is not None
    assert made.stand_table is not None and made.stand_shift is not None
    made.stand_shift.normal_()
    out = made.picture(VisionFeatures(torch.randn(1, WIDTH), patches))
    where = stands(made.reader.find(patches, 2))[0]
    one, two = made.stand_table[where]
    words = table[:2] + made.stand_shift[where]
    assert torch.allclose(out[0, 1:3], words[0].expand(2, -1), atol=1e-5)
    assert torch.allclose(out[0, 3], made.row_table[0] + made.column_table[0] + one, atol=1e-5)
    assert torch.allclose(out[0, 4:6], words[1].expand(2, -1), atol=1e-5)
    assert torch.allclose(out[0, 6], made.row_table[3] + made.column_table[2] + two, atol=1e-5)
    assert float(out[0, 7:].abs().max()) == 0.0 and float(out[0, 0].abs().max()) == 0.0


def test_a_connector_takes_the_reader_of_its_tower_or_refuses() -> None:
    encoder = EncoderConfig(width=WIDTH, layers=1, heads=2, ffn_width=8)
    shape = VisionTowerConfig(
        image_size=32, patch=8, encoder=encoder, region_words=2, symbols=SYMBOLS
    )
    tower, table = VisionTower(shape), torch.randn(9, 6)
    made = LinearConnector(config())
    take_reader(made, tower, table)
    assert made.reader is not None and made.symbol_table is not None and tower.reader is not None
    for one, other in zip(made.reader.parameters(), tower.reader.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(made.symbol_table[1:], table[:SYMBOLS])
    blind = VisionTower(VisionTowerConfig(image_size=32, patch=8, encoder=encoder))
    with pytest.raises(ValueError, match="but the tower as None"):
        take_reader(made, blind, table)
    with pytest.raises(ValueError, match="need words, a grid and symbols"):
        LinearConnectorConfig(source_width=8, target_width=6, regions=2)


@torch.no_grad()
def test_places_next_to_each_other_are_alike() -> None:
    made = LinearConnector(config())
    made.smooth_places()
    assert made.row_table is not None
    steps = (made.row_table[1:] - made.row_table[:-1]).norm(dim=1)
    assert float((made.row_table[0] - made.row_table[-1]).norm()) > float(steps.max())


@torch.no_grad()
def test_two_things_stand_apart_the_way_they_are_farther() -> None:
    for one, other, wanted in (
        ((0, 1), (3, 1), ["above", "below"]),
        ((1, 0), (2, 3), ["left", "right"]),
        ((2, 0), (1, 3), ["left", "right"]),
        ((3, 0), (0, 1), ["below", "above"]),
    ):
        found = reader().find(picture((*one, 9.0, 1), (*other, 9.0, 2)), 3)
        assert [STANDS[i - 1] for i in stands(found)[0, :2].tolist()] == wanted
        assert int(stands(found)[0, 2]) == 0


@torch.no_grad()
def test_one_thing_stands_nowhere_and_more_than_two_in_a_row() -> None:
    things = [(0, 0, 9.0, 1), (2, 2, 9.0, 2), (0, 3, 9.0, 3)]
    alone = reader().find(picture(things[0]), 4)
    assert stands(alone)[0].tolist() == [0, 0, 0, 0]
    row = reader().find(picture(*things), 4)
    assert [STANDS[i - 1] for i in stands(row)[0, :3].tolist()] == ["left", "middle", "right"]


@torch.no_grad()
def test_stands_start_from_the_words_for_them() -> None:
    made, words = LinearConnector(config()), torch.randn(5, 6)
    made.name_places(words)
    assert made.stand_table is not None
    found = reader().find(picture((0, 1, 9.0, 1), (3, 1, 9.0, 2)), 3)
    above, below = made.stand_table[stands(found)[0, :2]]
    assert torch.equal(above, words[1]) and torch.equal(below, words[3])


@torch.no_grad()
def test_a_centre_between_two_patches_is_placed_between_them() -> None:
    found = reader().find(picture((1, 1, 5.0, 1), (1, 2, 4.999, 1)), 1)
    assert abs(float(found.place[0, 0, 1]) - 1.5) < 0.1
    assert abs(float(found.place[0, 0, 0]) - 1.0) < 0.1


def test_taking_patches_takes_those() -> None:
    patches = torch.arange(2 * 16 * 3.0).view(2, 16, 3)
    found = reader().find(torch.zeros(2, 16, WIDTH), 2)
    assert torch.equal(take_patches(patches, found)[1, 0], patches[1, int(found.patch[1, 0])])
