"""Token spaces: the rules, the hash over the meaning, what can be added, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumoomni.codecs.facts import CodecFacts
from lumoomni.errors import InputError
from lumoomni.uti.space import (
    SPECIAL_SLOTS,
    SPECIALS,
    Range,
    TokenSpace,
    flatten,
    new_space,
    unflatten,
)
from lumoomni.uti.space_file import (
    FILE,
    SIDECAR,
    load_legacy,
    load_space,
    refuse_other,
    save_space,
)

IMAGE = CodecFacts(
    kind="image", name="vq", weights="a" * 64, codebooks=1, codebook_size=8192, tokens=32
)
AUDIO = CodecFacts(
    kind="audio",
    name="rvq",
    weights="b" * 64,
    codebooks=4,
    codebook_size=1024,
    frame_rate=150.0,
    sample_rate=48000,
    channels=2,
    side=("scales",),
)


def seed_space() -> TokenSpace:
    return new_space(151_669, "t" * 64, (IMAGE, AUDIO))


def test_the_seeds_layout_is_reached_to_the_id() -> None:
    space = seed_space()
    found = {one.name: (one.start, one.end, one.size) for one in space.ranges}
    assert found == {
        "TEXT": (0, 151668, 151669),
        "SPECIAL": (151669, 151732, 64),
        "IMAGE": (151733, 159924, 8192),
        "AUDIO_CB0": (159925, 160948, 1024),
        "AUDIO_CB1": (160949, 161972, 1024),
        "AUDIO_CB2": (161973, 162996, 1024),
        "AUDIO_CB3": (162997, 164020, 1024),
    }
    assert space.size == 164_021 and len(space.new_rows) == 12_352
    assert [space.special(name) for name in SPECIALS] == list(range(151_669, 151_679))


def test_the_hash_covers_the_meaning_and_nothing_else(tmp_path: Path) -> None:
    space = seed_space()
    for number, made in enumerate(({"device": "cuda"}, {"path": "/elsewhere"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_space(folder, space, made)
        assert load_space(folder) == space
        assert (folder / SIDECAR).read_text() == space.abi + "\n"
    for changed in (
        new_space(151_669, "u" * 64, (IMAGE, AUDIO)),
        new_space(151_936, "t" * 64, (IMAGE, AUDIO)),
        new_space(151_669, "t" * 64, (AUDIO, IMAGE)),
        new_space(151_669, "t" * 64, (replace(IMAGE, weights="c" * 64), AUDIO)),
        new_space(151_669, "t" * 64, (replace(IMAGE, tokens=64), AUDIO)),
        new_space(151_669, "t" * 64, (IMAGE, replace(AUDIO, frame_rate=75.0))),
        new_space(151_669, "t" * 64, (IMAGE, replace(AUDIO, serialization="book_by_book"))),
    ):
        assert changed.abi != space.abi
        with pytest.raises(InputError, match=f"{changed.abi[:12]}.*{space.abi[:12]}"):
            refuse_other(space.abi, changed.abi, "shard 3")
    refuse_other(space.abi, seed_space().abi, "shard 3")


def test_a_codec_is_added_behind_and_every_older_id_stays() -> None:
    old = new_space(1000, "t" * 64, (IMAGE,))
    new = old.with_codec(AUDIO)
    assert new.holds(old) and not old.holds(new) and new.abi != old.abi
    assert new.ranges[: len(old.ranges)] == old.ranges
    with pytest.raises(InputError, match="one codec a kind"):
        new.with_codec(replace(AUDIO, name="other"))
    assert not new_space(1000, "t" * 64, (AUDIO,)).holds(old)


def test_broken_ranges_are_named() -> None:
    space = seed_space()

    def changed(name: str, start: int, end: int) -> TokenSpace:
        ranges = [
            Range(name=name, start=start, end=end) if r.name == name else r for r in space.ranges
        ]
        return replace(space, ranges=tuple(ranges))

    with pytest.raises(InputError, match="IMAGE starts at 151734 and leaves a gap after SPECIAL"):
        changed("IMAGE", 151734, 159924)
    with pytest.raises(InputError, match="AUDIO_CB1 starts at 160948 and overlaps AUDIO_CB0"):
        changed("AUDIO_CB1", 160948, 161972)
    with pytest.raises(InputError, match="TEXT starts at 1, not at 0"):
        changed("TEXT", 1, 151668)
    with pytest.raises(InputError, match="but the codecs take"):
        replace(space, codecs=(replace(IMAGE, codebook_size=4096), AUDIO))
    with pytest.raises(InputError, match="outside SPECIAL"):
        replace(space, specials=tuple((n, 5 if n == SPECIALS[3] else i) for n, i in space.specials))
    with pytest.raises(InputError, match="two special symbols have one id"):
        replace(space, specials=tuple((n, 151_669) for n, _ in space.specials))
    with pytest.raises(InputError, match=r"symbols \['<\|pad_mm\|>'\] have no ids"):
        replace(space, specials=space.specials[:-1])
    with pytest.raises(InputError, match="has no HUM"):
        space.named("HUM")
    with pytest.raises(InputError, match="has no image codec"):
        new_space(10, "t").codec("image")
    with pytest.raises(InputError, match="at least one token"):
        replace(IMAGE, tokens=0)
    with pytest.raises(InputError, match="must be positive"):
        replace(AUDIO, sample_rate=0)


def test_a_file_that_was_changed_or_cut_is_refused(tmp_path: Path) -> None:
    save_space(tmp_path, seed_space())
    path = tmp_path / FILE
    whole = path.read_text()
    path.write_text(whole.replace('"tokens": 32', '"tokens": 33'))
    with pytest.raises(InputError, match="was changed by hand"):
        load_space(tmp_path)
    path.write_text(whole[:100])
    with pytest.raises(InputError, match="not valid JSON"):
        load_space(path)
    path.write_text(whole.replace("lumo_uti_v1", "lumo_uti_v9"))
    with pytest.raises(InputError, match="version 'lumo_uti_v9'; this program reads"):
        load_space(path)
    with pytest.raises(InputError, match="there is no"):
        load_space(tmp_path / "none")


def test_the_older_form_is_read_with_its_own_hash(tmp_path: Path) -> None:
    space = seed_space()
    data = {
        "version": "uti_v1",
        "created_utc": "2026-01-26T09:02:31Z",
        "text_vocab_size": 151_669,
        "special_tokens": dict(space.specials),
        "ranges": {r.name: {"start": r.start, "end": r.end, "size": r.size} for r in space.ranges},
        "vocab_size_total": 164_021,
    }
    path = tmp_path / FILE
    path.write_text(json.dumps(data, indent=2))
    ranges, specials, digest = load_legacy(path)
    assert ranges == space.ranges and specials == dict(space.specials)
    path.write_text(json.dumps(dict(reversed(data.items()))))
    assert load_legacy(path)[2] == digest, "the order of keys is no part of it"
    path.write_text(json.dumps({**data, "created_utc": "2026-01-25T19:05:55Z"}))
    assert load_legacy(path)[2] != digest, "the date is"
    with pytest.raises(InputError, match="names no weights"):
        load_space(path)
    data["ranges"]["IMAGE"]["end"] += 1  # type: ignore[index]
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="ends included, which is 8193 ids, but its size is 8192"):
        load_legacy(path)


@given(st.integers(1, 5), st.integers(1, 40), st.integers(2, 60), st.integers(1, 3000))
def test_codes_come_back_from_their_ids(books: int, frames: int, size: int, text: int) -> None:
    codec = replace(AUDIO, codebooks=books, codebook_size=size)
    space = new_space(text, "t", (codec,))
    codes = np.random.default_rng(frames).integers(0, size, (frames, books))
    ids = flatten(codes, space.books("audio"))
    assert ids.min() >= text + SPECIAL_SLOTS and ids.max() < space.size
    assert (unflatten(ids, space.books("audio")) == codes).all()
    assert ids[0] == space.books("audio")[0].start + codes[0, 0]


def test_ids_in_the_wrong_order_are_no_codes() -> None:
    books = seed_space().books("audio")
    ids = flatten(np.zeros((3, 4), int), books)
    swapped = ids.copy()
    swapped[[4, 5]] = swapped[[5, 4]]
    with pytest.raises(ValueError, match="at frame 1 is not of AUDIO_CB0"):
        unflatten(swapped, books)
    with pytest.raises(ValueError, match="no whole frames of 4"):
        unflatten(ids[:-1], books)
    with pytest.raises(ValueError, match="codes run to 1024"):
        flatten(np.full((1, 4), 1024), books)
    with pytest.raises(ValueError, match="there are 4 codebooks"):
        flatten(np.zeros((3, 2), int), books)
