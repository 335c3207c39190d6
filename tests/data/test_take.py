"""Measuring never counts an item twice."""

from lumoomni.data.sample import take


class Finite:
    """Seven items that start over."""

    def item(self, split: str, index: int) -> int:
        return index % 7

    def size(self, split: str) -> int | None:
        return 7 if split == "seen" else None


def test_finite_data_is_taken_once_and_endless_data_as_asked() -> None:
    assert take(Finite(), "seen", 20) == [0, 1, 2, 3, 4, 5, 6]
    assert take(Finite(), "seen", 3) == [0, 1, 2]
    assert len(take(Finite(), "train", 20)) == 20
