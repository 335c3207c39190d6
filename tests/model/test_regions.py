"""Regions: found where they are, read in order, silent where nothing is, and learned from words."""

import pytest
import torch

from lumoomni.model.regions import (
    IGNORE,
    RegionReader,
    RegionReaderConfig,
    expect_words,
    region_losses,
    take_patches,
)

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


def test_taking_patches_takes_those() -> None:
    patches = torch.arange(2 * 16 * 3.0).view(2, 16, 3)
    found = reader().find(torch.zeros(2, 16, WIDTH), 2)
    assert torch.equal(take_patches(patches, found)[1, 0], patches[1, int(found.patch[1, 0])])
