"""Byte-level BPE: lossless, and special ids cannot be spelled."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from lumoomni.codecs.text import SPECIALS, TextCodec
from lumoomni.errors import InputError
from tests.tiny import text_codec

CODEC = text_codec()


@settings(deadline=None)
@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert CODEC.decode(CODEC.encode(text)) == text


@settings(deadline=None)
@given(st.lists(st.one_of(st.sampled_from(SPECIALS), st.text(max_size=4))).map("".join))
def test_text_never_yields_a_special_id(text: str) -> None:
    special = {CODEC.special(name) for name in SPECIALS}
    assert not special & set(CODEC.encode(text))
    assert CODEC.decode(CODEC.encode(text)) == text


def test_offsets_cover_the_text() -> None:
    text = "a large red circle"
    spans = CODEC.offsets(text)
    assert len(spans) == len(CODEC.encode(text))
    assert spans[0][0] == 0 and spans[-1][1] == len(text)


def test_spoken_ids_have_letters() -> None:
    assert CODEC.spoken[CODEC.encode("red")].all()
    assert not CODEC.spoken[CODEC.encode("?,")].any()
    assert not CODEC.spoken[CODEC.special("<|im_end|>")]


def test_it_is_saved_and_hashed_by_content(tmp_path: Path) -> None:
    CODEC.save(tmp_path / "tokenizer.json")
    again = TextCodec.load(tmp_path / "tokenizer.json")
    assert again.hash == CODEC.hash == text_codec().hash
    assert again.encode("<|im_end|> red") == CODEC.encode("<|im_end|> red")
    with pytest.raises(InputError, match="no tokenizer"):
        TextCodec.load(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        TextCodec.load(tmp_path / "bad.json")
    with pytest.raises(InputError, match="at least 267"):
        TextCodec.train(["a"], 100)
    with pytest.raises(InputError, match="no special symbol"):
        CODEC.special("<|nothing|>")


def test_a_files_truncation_and_padding_are_not_kept(tmp_path: Path) -> None:
    """Files keep the settings of the last call; text would be cut, or filled up, unsaid."""
    path = tmp_path / "tokenizer.json"
    CODEC.save(path)
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(path))
    codec, text = TextCodec.load(path), "a large red circle above a small blue square"
    assert codec.encode(text) == CODEC.encode(text) and len(codec.encode("a")) == 1


def test_what_composes_says_what_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    CODEC.save(path)
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.save(str(path))
    codec, apart = TextCodec.load(path), "cafe\u0301"
    assert codec.decode(codec.encode(apart)) == codec.composed(apart) == "caf\u00e9"
    assert CODEC.decode(CODEC.encode(apart)) == CODEC.composed(apart) == apart
