"""Near duplicates: against a brute-force search, in any order, with few comparisons."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.data import near_duplicates as near_duplicates_file
from lumoomni.data.near_duplicates import Pair, near_duplicates, ngrams, same_assets
from lumoomni.errors import InputError

Item = tuple[str, str, np.ndarray]


def grams(ids: np.ndarray, n: int) -> set[tuple[int, ...]]:
    """The n-grams themselves; a short item is one."""
    row = tuple(ids.tolist())
    width = min(n, len(row))
    return {row[i : i + width] for i in range(len(row) - width + 1)} if row else set()


def brute(items: list[Item], n: int, at_least: float) -> dict[tuple[str, str], float]:
    """All pairs of items of different splits, by comparing every one with every other."""
    found = {}
    for (a, split, one), (b, other_split, other) in itertools.combinations(items, 2):
        x, y = grams(one, n), grams(other, n)
        if split != other_split and x and y and len(x & y) / len(x | y) >= at_least:
            first, second = sorted(((split, a), (other_split, b)))
            found[first[1], second[1]] = len(x & y) / len(x | y)
    return found


rows = st.lists(st.integers(0, 3), max_size=14)
drawn = st.lists(st.tuples(st.sampled_from(("train", "eval", "test")), rows), max_size=14)


@settings(max_examples=200)
@given(drawn, st.integers(1, 5), st.sampled_from((0.2, 0.5, 0.8, 1.0)), st.randoms())
def test_it_finds_what_comparing_all_pairs_finds(made, n, at_least, random) -> None:
    items = [(f"k{i:02}", split, np.array(ids, np.int32)) for i, (split, ids) in enumerate(made)]
    wanted = brute(items, n, at_least)
    found = near_duplicates(items, n, at_least)
    said = {(pair.first, pair.second): pair.similarity for pair in found}
    # Items with equal n-grams are named once each, so every item is there, and no pair is wrong.
    assert said.items() <= wanted.items()
    assert {key for pair in said for key in pair} == {key for pair in wanted for key in pair}
    if len({frozenset(grams(ids, n)) for _, _, ids in items}) == len(items):
        assert said == wanted
    shuffled = random.sample(items, len(items))
    assert near_duplicates(iter(shuffled), n, at_least) == found


def test_a_pair_says_who_where_and_how_similar() -> None:
    clip = np.arange(100)
    near = np.concatenate([clip[:96], [7, 7, 7, 7]])
    items = [("b", "train", clip), ("a", "eval", near), ("far", "eval", np.arange(500, 600))]
    assert near_duplicates(items) == [Pair("a", "b", "eval", "train", 89 / 97)]
    assert near_duplicates(items, at_least=0.95) == []
    assert near_duplicates([("b", "train", clip), ("a", "train", near)]) == []
    # Three of a hundred ids in one place change 10 n-grams of 93.
    middle = clip.copy()
    middle[40:43] = 9
    (pair,) = near_duplicates([("x", "eval", middle), ("y", "train", clip)])
    assert pair.similarity == 83 / 103


def test_a_short_item_is_no_part_of_a_long_one() -> None:
    short, long = np.array([1, 2, 3]), np.array([1, 2, 3, 4, 5, 6, 7, 8])
    assert near_duplicates([("a", "eval", short), ("b", "train", long)], at_least=0.01) == []
    (pair,) = near_duplicates([("a", "eval", short), ("b", "train", short.copy())])
    assert pair.similarity == 1
    assert len(ngrams(short, 8)) == 1 and len(ngrams(long, 8)) == 1
    assert not np.intersect1d(ngrams(np.array([0]), 8), ngrams(np.array([0, 0]), 8)).size


def test_a_thousand_silent_clips_are_named_once_each() -> None:
    silence = [(f"t{i:04}", "train", np.zeros(50 + i, np.int32)) for i in range(1000)]
    held = [(f"e{i:02}", "eval", np.zeros(60 + i, np.int32)) for i in range(30)]
    found = near_duplicates([*silence, *held])
    assert len(found) == 1029
    assert {p.first for p in found} == {key for key, _, _ in held}
    assert {p.second for p in found} == {key for key, _, _ in silence}


def test_what_all_items_share_leads_to_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every item begins with the same hundred ids, and one is nearly another one."""
    compared = []
    real = near_duplicates_file._similar

    def counted(one, other, at_least):
        compared.append((one.keys, other.keys))
        return real(one, other, at_least)

    monkeypatch.setattr(near_duplicates_file, "_similar", counted)
    stream = np.random.default_rng(0)
    items = [
        (
            f"{i}",
            "eval" if i % 10 == 0 else "train",
            np.append(np.arange(100), stream.integers(0, 9999, 200)),
        )
        for i in range(500)
    ]
    copy = items[1][2].copy()
    copy[-3:] = 1
    (pair,) = near_duplicates([*items, ("copy", "eval", copy)])
    assert (pair.first, pair.second) == ("copy", "1")
    assert compared == [(["1"], ["copy"])]


def test_equal_files_in_two_splits() -> None:
    items = [
        ("a", "train", "1"),
        ("b", "train", "1"),
        ("c", "eval", "1"),
        ("d", "eval", "2"),
        ("e", "train", ""),
        ("f", "eval", ""),
        ("g", "train", "3"),
        ("h", "train", "3"),
    ]
    wanted = [Pair("c", "a", "eval", "train", 1.0), Pair("c", "b", "eval", "train", 1.0)]
    assert same_assets(items) == wanted
    assert same_assets(reversed(items)) == wanted


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "n is 0"),
        ({"at_least": 0.0}, "at_least is 0.0"),
        ({"at_least": 1.1}, "at_least is 1.1"),
    ],
)
def test_bad_settings_are_refused(arguments, words) -> None:
    with pytest.raises(InputError, match=words):
        near_duplicates([], **arguments)


def test_bad_ids_are_refused() -> None:
    for ids in (np.zeros((4, 2), np.int32), np.array([0.5, 1.0])):
        with pytest.raises(InputError, match="rows of whole numbers"):
            near_duplicates([("a", "eval", ids), ("b", "train", np.arange(9))])
