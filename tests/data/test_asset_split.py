"""Splits by asset: the documented rule, official splits, leaks."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumoomni.data.asset_split import OFFICIAL, asset_split, held_out, sides
from lumoomni.errors import InputError

hashes = st.binary(max_size=8).map(lambda data: hashlib.sha256(data).hexdigest())
records = st.lists(st.tuples(st.text(max_size=3), hashes, st.sampled_from(["", *OFFICIAL])))


@given(hashes, st.integers(0, 1000))
def test_the_rule_is_the_documented_one(sha256: str, parts: int) -> None:
    place = int(hashlib.sha256(sha256.encode()).hexdigest()[:16], 16) % 1000
    assert asset_split(sha256, parts / 1000) == ("eval" if place < parts else "train")
    assert asset_split(sha256) == ("eval" if place < 10 else "train")


def test_known_sides_do_not_move() -> None:
    """These hashes were split by hand; another rule would move held-out data into training."""
    empty = hashlib.sha256(b"").hexdigest()
    assert hashlib.sha256(empty.encode()).hexdigest().startswith("cd372fb85148700f")
    assert 0xCD372FB85148700F % 1000 == 671
    assert asset_split(empty, 0.671) == "train" and asset_split(empty, 0.672) == "eval"


def test_about_one_in_a_hundred_is_held_out() -> None:
    drawn = [
        asset_split(hashlib.sha256(bytes([i, j])).hexdigest())
        for i in range(100)
        for j in range(100)
    ]
    assert 60 <= drawn.count("eval") <= 140


@given(records, st.randoms())
def test_sides_depend_on_bytes_and_not_on_order_or_names(given_records, random) -> None:
    found = sides(given_records)
    assert sides(random.sample(given_records, len(given_records))) == found
    renamed = [(f"other {name}", sha256, official) for name, sha256, official in given_records]
    assert sides(renamed).of == found.of
    for _, sha256, official in given_records:
        if official and held_out(official):
            assert found.of[sha256] == "eval"
    free = {sha256 for _, sha256, _ in given_records} - {
        sha256 for _, sha256, official in given_records if official and held_out(official)
    }
    assert all(found.of[sha256] == asset_split(sha256) for sha256 in free)


def test_a_file_on_two_official_sides_is_named_and_not_trained_on() -> None:
    leaked = next(
        sha256
        for sha256 in (hashlib.sha256(bytes([i])).hexdigest() for i in range(99))
        if asset_split(sha256) == "train"
    )
    found = sides([("b", leaked, "train"), ("a", leaked, "test"), ("c", leaked, "")])
    assert found.of[leaked] == "eval"
    (leak,) = found.leaks
    assert leak.officials == ("test", "train") and leak.ids == ("a", "b", "c")
    assert leaked[:12] in str(leak) and "test and train" in str(leak)
    assert sides([("a", leaked, "test"), ("b", leaked, "val")]).leaks == ()
    assert sides([("a", leaked, "train"), ("b", leaked, "")]).leaks == ()


def test_development_is_trained_on_and_dev_is_not() -> None:
    assert not held_out("development") and held_out("dev-clean")
    assert held_out("evaluation") and held_out("val2017") and not held_out("train2017")
    assert not held_out("")
    with pytest.raises(InputError, match="did you mean development"):
        held_out("developement")


@pytest.mark.parametrize("wrong", ["", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_what_is_no_hash_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="is no SHA-256"):
        asset_split(wrong)


@pytest.mark.parametrize("share", [-0.1, 1.1, 0.0005, float("nan")])
def test_shares_that_are_no_thousandths_are_refused(share: float) -> None:
    with pytest.raises(InputError, match="whole thousandths"):
        asset_split("a" * 64, share)
