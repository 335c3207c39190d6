"""The token interface: many segments at once, side data, spaces that grow; text stays text."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumoomni.codecs.facts import CodecFacts, Coded, Kind, MediaCodec
from lumoomni.codecs.text import SPECIALS as TEXT_SPECIALS
from lumoomni.codecs.text import TextCodec
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio
from lumoomni.uti.interface import UTI, TokenSpan, samples_for
from lumoomni.uti.space import SPECIALS, flatten, new_space, unflatten

SOUND = CodecFacts(
    kind="audio",
    name="levels",
    weights="a" * 64,
    codebooks=2,
    codebook_size=64,
    frame_rate=100.0,
    sample_rate=1000,
    side=("peak",),
)
PICTURE = CodecFacts(
    kind="image",
    name="grey",
    weights="b" * 64,
    codebooks=1,
    codebook_size=256,
    tokens=4,
    image_size=2,
)
TEXT = TextCodec.train(["a small red circle", "what is said?"] * 20, 300)


class Levels:
    """Ten samples a frame: their loudest, in steps of a 64th of the clip's, and the same again."""

    facts = SOUND
    calls: list[int]

    def __init__(self) -> None:
        self.calls = []

    def encode(self, samples: np.ndarray) -> Coded:
        return self.encode_batch([samples])[0]

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        self.calls.append(len(media))
        made = []
        for samples in media:
            peak = float(np.abs(samples).max())
            padded = np.pad(samples, (0, -len(samples) % 10)).reshape(-1, 10)
            levels = np.round(np.abs(padded).max(1) / max(peak, 1e-9) * 63).astype(np.int64)
            made.append(Coded(np.stack([levels, levels], 1), {"peak": peak}))
        return made

    def decode(self, coded: Coded) -> Audio:
        self.facts.check(coded)
        levels = coded.codes[:, 0].repeat(10) / 63 * coded.side["peak"]
        return Audio(levels.astype(np.float32), 1000)


class Grey:
    """Four corners' red."""

    facts = PICTURE

    def encode(self, picture: np.ndarray) -> Coded:
        corners = picture[[0, 0, -1, -1], [0, -1, 0, -1], 0]
        return Coded(corners.astype(np.int64)[:, None])

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        return [self.encode(one) for one in media]

    def decode(self, coded: Coded) -> np.ndarray:
        self.facts.check(coded)
        return coded.codes.reshape(2, 2, 1).repeat(3, 2).astype(np.uint8)


def interface() -> UTI:
    codecs: dict[Kind, MediaCodec] = {"image": Grey(), "audio": Levels()}
    return UTI(new_space(TEXT.vocab_size, TEXT.hash, (PICTURE, SOUND)), TEXT, codecs)


def clip(seed: int, samples: int = 105) -> Audio:
    stream = np.random.default_rng(seed)
    return Audio((0.3 * stream.standard_normal(samples)).astype(np.float32), 1000)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)


MEDIA = st.one_of(
    st.text(max_size=20),
    st.builds(clip, st.integers(0, 99), st.integers(1, 300)),
    st.builds(picture, st.integers(0, 99)),
)


@given(st.lists(MEDIA, max_size=6))
def test_a_mixture_comes_back_from_its_ids_and_meta(segments: list[Any]) -> None:
    uti = interface()
    spans = uti.encode_batch(segments)
    ids = uti.join(spans)
    assert np.array_equal(ids, uti.pack(segments)) and uti.grammar.check(ids.tolist()) == ""
    back = uti.unpack(ids, [span.meta for span in spans])
    assert len(back) == len(segments)
    for given_, span, found in zip(segments, spans, back, strict=True):
        alone = uti.encode(given_)
        assert (found.kind, found.meta) == (span.kind, span.meta) == (alone.kind, alone.meta)
        assert np.array_equal(found.ids, span.ids) and np.array_equal(alone.ids, span.ids)
        said = uti.decode(found)
        if isinstance(given_, str):
            assert said == given_
        elif isinstance(given_, Audio):
            assert isinstance(said, Audio) and len(said.samples) == len(given_.samples)
        else:
            assert np.array_equal(np.asarray(said)[0, 0], given_[0, 0, [0, 0, 0]])


def test_each_kind_goes_to_its_codec_at_once() -> None:
    uti = interface()
    levels: Any = uti.codecs["audio"]
    uti.encode_batch(["a", clip(1), picture(1), clip(2), "b", clip(3)])
    assert levels.calls == [3]
    assert uti.encode_batch([]) == []
    meta = uti.encode(clip(1)).meta
    assert meta == {
        "frames": 11,
        "seconds": 0.105,
        "samples": 105,
        "side": {"peak": float(np.abs(clip(1).samples).max())},
    }
    assert uti.encode(picture(1)).meta == {"size": [5, 7]} and uti.encode("a").meta == {}


def test_sound_without_its_side_data_is_not_decoded() -> None:
    uti = interface()
    span = uti.encode(clip(1))
    with pytest.raises(InputError, match="levels cannot decode ids alone: it needs peak"):
        uti.decode(uti.unpack(uti.join([span]))[0])
    with pytest.raises(InputError, match="there are 1 segments, but meta of 2"):
        uti.unpack(uti.join([span]), [span.meta] * 2)
    whole = uti.decode(TokenSpan("audio", span.ids, {"side": span.meta["side"]}))
    assert isinstance(whole, Audio) and len(whole.samples) == 110, "samples only cut the last frame"


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(InputError, match="a picture is"):
        interface().encode(np.zeros((2, 2, 2, 2), np.uint8))


@given(st.lists(st.sampled_from([*SPECIALS, *TEXT_SPECIALS, " ", "a", "🙂", "\n"]), max_size=8))
def test_text_that_spells_a_symbol_is_plain_text(pieces: list[str]) -> None:
    uti, said = interface(), "".join(pieces)
    ids = uti.encode(said).ids
    reserved = {TEXT.special(name) for name in TEXT_SPECIALS}
    assert not reserved & set(ids.tolist()) and uti.decode(uti.encode(said)) == said
    assert all(int(i) in uti.space.named("TEXT") for i in ids)
    assert [span.kind for span in uti.unpack(uti.pack([said, said]))] == ["text", "text"]


FACTS = st.builds(
    lambda kind, books, size: (
        replace(PICTURE, codebook_size=size)
        if kind == "image"
        else replace(SOUND, codebooks=books, codebook_size=size)
    ),
    st.sampled_from(["image", "audio"]),
    st.integers(1, 8),
    st.integers(1, 5000),
)


@given(
    st.integers(1, 200_000),
    st.lists(FACTS, max_size=2, unique_by=lambda facts: facts.kind),
    st.integers(0, 2**32 - 1),
)
def test_a_space_that_grows_keeps_every_id(text: int, codecs: list[CodecFacts], seed: int) -> None:
    space, older, ids = new_space(text, "t"), [], {}
    for facts in codecs:
        older.append(space)
        space = space.with_codec(facts)
        count = facts.tokens or 7
        shape = (count, facts.codebooks)
        codes = np.random.default_rng(seed).integers(0, facts.codebook_size, shape)
        ids[facts.kind] = (codes, flatten(codes, space.books(facts.kind)))
        assert ids[facts.kind][1].min() >= older[-1].size and ids[facts.kind][1].max() < space.size
    assert len({one.abi for one in (*older, space)}) == len(codecs) + 1
    for one in older:
        assert space.holds(one) and space.specials == one.specials
        assert space.ranges[: len(one.ranges)] == one.ranges
    for kind, (codes, made) in ids.items():
        assert np.array_equal(made, flatten(codes, space.books(kind)))
        assert np.array_equal(unflatten(made, space.books(kind)), codes)


def test_stereo_codecs_get_both_sides() -> None:
    two = replace(SOUND, channels=2)
    left, right = clip(1, 200).samples, clip(2, 200).samples
    mono = samples_for(Audio(left, 1000), two)
    assert mono.shape == (2, 200) and np.array_equal(mono[0], left) and np.array_equal(*mono)
    both = samples_for(Audio(np.stack([left, right], 1), 1000), two)
    assert np.array_equal(both[0], left) and np.array_equal(both[1], right)
    half = samples_for(Audio(np.stack([left, right], 1), 500), two)
    assert half.shape == (2, 400) and not np.array_equal(half[0], half[1])
    mixed = samples_for(Audio(np.stack([left, right], 1), 1000), SOUND)
    assert np.allclose(mixed, (left + right) / 2)


def test_a_codec_that_only_encodes_is_known_but_means_the_same() -> None:
    blind = replace(PICTURE, decodes=False)
    assert blind == PICTURE and new_space(9, "t", (blind,)).abi == new_space(9, "t", (PICTURE,)).abi
    with pytest.raises(InputError, match="grey only encodes"):
        blind.check(Coded(np.zeros((4, 1), np.int64)))
    for changed in ({"image_size": 4}, {"preprocessing": "crop"}):
        other = replace(PICTURE, **changed)  # type: ignore[arg-type]
        assert other != PICTURE
        assert new_space(9, "t", (other,)).abi != new_space(9, "t", (PICTURE,)).abi
