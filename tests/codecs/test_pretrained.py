"""Published codecs through one protocol: the library's own codes, the same ones every time, and
honest refusals. All are tiny and random; their books hold what their encoders give."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.codecs.facts import Coded
from lumoomni.codecs.pretrained import CodecOptions, load_pretrained
from lumoomni.errors import InputError
from tests.codecs.tiny_codecs import PICTURE, SOUND, picture, sound, write_codec

LENGTHS = (1, 319, 1921, 47_525, 60_000)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("codecs")
    return {name: write_codec(root / name, name) for name in (*SOUND, *PICTURE)}


@pytest.fixture(scope="module")
def codecs(folders: dict[str, Path]) -> dict[str, Any]:
    return {
        name: load_pretrained(
            folder, CodecOptions(image_size=32) if name == "emu3" else CodecOptions()
        )
        for name, folder in folders.items()
    }


def clips(codec: Any) -> list[np.ndarray]:
    return [sound(i, n, codec.facts.channels) for i, n in enumerate(LENGTHS)]


def equal(a: Coded, b: Coded) -> bool:
    return np.array_equal(a.codes, b.codes) and a.side == b.side


@pytest.mark.parametrize("name", SOUND)
def test_sound_goes_there_and_back_the_same_in_any_company(
    codecs: dict[str, Any], name: str
) -> None:
    codec = codecs[name]
    facts, given_ = codec.facts, clips(codec)
    alone = [codec.encode(clip) for clip in given_]
    together = codec.encode_batch(given_[::-1])[::-1]
    assert all(equal(a, b) for a, b in zip(alone, together, strict=True))
    everything = np.concatenate([one.codes for one in alone])
    assert all(len(set(book)) >= 3 for book in everything.T)
    assert sum(len(set(book)) for book in everything.T) >= 40, "the codes say next to nothing"
    assert not any(equal(a, b) for a, b in itertools.pairwise(alone[2:]))
    for clip, coded in zip(given_, alone, strict=True):
        frames = clip.shape[-1] / facts.sample_rate * facts.frame_rate
        assert coded.codes.dtype == np.int64 and coded.codes.shape[1] == facts.codebooks
        # Chunks of EnCodec at 48 kHz overlap by a hundredth from the second one on.
        assert 0.99 * frames - 1e-6 <= len(coded.codes) < frames + 2
        assert set(coded.side) == set(facts.side)
        back = codec.decode(Coded(coded.codes, json.loads(json.dumps(coded.side))))
        assert back.samples.dtype == np.float32 and back.rate == facts.sample_rate
        assert back.samples.ndim == facts.channels and np.isfinite(back.samples).all()
        assert 0 <= len(back.samples) - clip.shape[-1] < 2 * facts.sample_rate / facts.frame_rate


@pytest.mark.parametrize("name", SOUND)
def test_sound_is_decoded_as_the_library_does(
    codecs: dict[str, Any], folders: dict[str, Path], name: str
) -> None:
    books = {"encodec": 6, "encodec48": 6, "mimi": 4, "dac": 3}[name]
    codec: Any = load_pretrained(folders[name], CodecOptions(books=books))
    model, clip = codec.model, sound(3, 512 * 120, codec.facts.channels)
    wave = torch.from_numpy(clip.reshape(1, codec.facts.channels, -1))
    with torch.no_grad():
        if name.startswith("encodec"):
            most = max(model.config.target_bandwidths)
            codes, scales, pad = model.encode(wave, bandwidth=most, return_dict=False)
            back = model.decode(codes, scales, last_frame_pad_length=pad, return_dict=False)[0]
        else:
            back = model(wave).audio_values
    coded = codec.encode(clip)
    whole = back.reshape(codec.facts.channels, -1).numpy()

    def far(codes: np.ndarray) -> float:
        found = codec.decode(replace(coded, codes=codes)).samples
        return float(np.abs(found.T.reshape(len(whole), -1)[:, : whole.shape[1]] - whole).max())

    # Random decoders hardly listen to their codes: what counts is how much less than to others.
    others = min(far(coded.codes[::-1]), far(np.roll(coded.codes, 1, axis=1)))
    assert others > 0 and far(coded.codes) < 0.01 * others


@pytest.mark.parametrize("name", SOUND)
def test_fewer_books_are_the_first_ones(
    codecs: dict[str, Any], folders: dict[str, Path], name: str
) -> None:
    few, clip = load_pretrained(folders[name], CodecOptions(books=2)), clips(codecs[name])[3]
    assert few.facts.codebooks == 2
    assert np.array_equal(few.encode(clip).codes, codecs[name].encode(clip).codes[:, :2])
    assert len(few.decode(few.encode(clip)).samples) >= clip.shape[-1]
    with pytest.raises(InputError, match=r"codebooks, not 99; ask for 1 to"):
        load_pretrained(folders[name], CodecOptions(books=99))


def test_encodec_at_48_khz_needs_its_scales(codecs: dict[str, Any]) -> None:
    codec = codecs["encodec48"]
    coded = codec.encode(sound(5, 60_000, 2))
    scales, pad = coded.side["scales"], coded.side["last_frame_pad_length"]
    assert len(scales) == 2 and pad > 0 and codec.facts.frame_rate > 151
    plain = codec.decode(coded).samples
    loud = codec.decode(Coded(coded.codes, {**coded.side, "scales": [2 * s for s in scales]}))
    assert np.allclose(loud.samples, 2 * plain, atol=1e-5)
    for side in ({}, {"scales": scales}):
        with pytest.raises(InputError, match=r"needs .*last_frame_pad_length"):
            codec.decode(Coded(coded.codes, side))
    for side in ({"scales": scales[:1]}, {"last_frame_pad_length": pad + 1}, {"scales": []}):
        with pytest.raises(InputError, match="keep side data with their ids"):
            codec.decode(Coded(coded.codes, {**coded.side, **side}))
    with pytest.raises(InputError, match=r"reads samples \[2, S\], got \[60000\]"):
        codec.encode(sound(5, 60_000))


@settings(max_examples=6)
@given(samples=st.integers(1, 9_000), seed=st.integers(0, 99))
def test_sound_of_any_length_is_whole(codecs: dict[str, Any], samples: int, seed: int) -> None:
    for name in SOUND:
        codec = codecs[name]
        clip = sound(seed, samples, codec.facts.channels)
        back = codec.decode(codec.encode(clip)).samples
        frame = codec.facts.sample_rate / codec.facts.frame_rate
        assert samples <= len(back) <= samples + 1.02 * frame


@pytest.mark.parametrize("name", PICTURE)
def test_pictures_have_as_many_codes_and_are_the_same_in_any_company(
    codecs: dict[str, Any], name: str
) -> None:
    codec = codecs[name]
    given_ = [picture(i, 20 + 9 * i, 70 - 9 * i) for i in range(5)]
    alone = [codec.encode(one) for one in given_]
    together = codec.encode_batch(given_[::-1])[::-1]
    assert all(equal(a, b) for a, b in zip(alone, together, strict=True))
    assert all(one.codes.shape == (codec.facts.tokens, 1) == (64, 1) for one in alone)
    assert all(len(set(one.codes[:, 0])) >= 10 for one in alone), "the codes say next to nothing"
    assert len({one.codes.tobytes() for one in alone}) == 5
    if codec.facts.decodes:
        back = [codec.decode(one) for one in alone]
        assert all(one.shape == (32, 32, 3) and one.dtype == np.uint8 for one in back)
        assert len({one.tobytes() for one in back}) == 5
    else:
        with pytest.raises(InputError, match="chameleon-vq only encodes"):
            codec.decode(alone[0])


@pytest.mark.parametrize("name", ["chameleon", "emu3"])
def test_pictures_have_the_librarys_codes(codecs: dict[str, Any], name: str) -> None:
    codec, shown = codecs[name], picture(1, 32, 32)
    pixels = torch.from_numpy(shown.astype(np.float32)).permute(2, 0, 1)[None]
    pixels = pixels * 0.0078 - 1 if name == "chameleon" else pixels / 127.5 - 1
    more = {"image_sizes": torch.tensor([[32, 32]])} if name == "emu3" else {}
    with torch.no_grad():
        wanted = codec.model.encode(pixels, **more).image_tokens
    wanted = torch.stack(list(wanted)).reshape(-1).numpy()
    assert np.mean(codec.encode(shown).codes[:, 0] == wanted) > 0.95


def test_janus_looks_among_vectors_of_length_one(codecs: dict[str, Any]) -> None:
    """Against the quantiser as it was published, on a codebook that is not of length one."""
    codec = codecs["janus"]
    book = codec.model.quantize.embedding.weight
    assert book.norm(dim=1).std() > 0.3 * book.norm(dim=1).mean(), (
        "on such a book nothing would differ"
    )
    same, other = [], []
    for seed in range(4):
        shown = picture(seed, 32, 32)
        pixels = torch.from_numpy(shown.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            latents = codec.model.quant_conv(codec.model.encoder(pixels))
            theirs = codec.model.encode(pixels).image_tokens.reshape(-1)
        found = codec.encode(shown).codes[:, 0]
        same.append(np.mean(found == published(latents, book).numpy()))
        other.append(np.mean(found == theirs.numpy()))
    assert np.mean(same) > 0.98 and np.mean(other) < 0.8
    # What is decoded is the nearest of those vectors too.
    with torch.no_grad():
        entry = codec.model.quantize.get_codebook_entry(torch.arange(64)[None])
    assert torch.allclose(entry.norm(dim=1), torch.ones(1, 8, 8), atol=1e-5)


def published(latents: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    """LlamaGen's quantiser with `l2_norm`: cosines are what counts, however it is written."""
    vectors = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    return F.cosine_similarity(vectors[:, None], book[None], dim=-1).argmax(1)


def test_pictures_are_made_square_as_asked(folders: dict[str, Path]) -> None:
    made = {}
    for fit in ("crop", "pad", "stretch"):
        codec = load_pretrained(folders["emu3"], CodecOptions(image_size=32, fit=fit))  # type: ignore[arg-type]
        made[codec.facts.preprocessing] = codec.encode(picture(0, 30, 90)).codes.tobytes()
    assert len(made) == len(set(made.values())) == 3
    for name in ("emu3", "chameleon"):
        options = CodecOptions(image_size=32) if name == "emu3" else CodecOptions()
        rules = load_pretrained(folders[name], options).rules  # type: ignore[union-attr]
        shown = picture(2, 32, 32)
        assert np.array_equal(rules.picture(rules.ready(shown)), shown)
    with pytest.raises(InputError, match="a multiple of 4 pixels a side, not 30"):
        load_pretrained(folders["emu3"], CodecOptions(image_size=30))
    with pytest.raises(InputError, match="of 32 pixels a side, not 64"):
        load_pretrained(folders["janus"], CodecOptions(image_size=64))
    with pytest.raises(InputError, match="cannot be fitted by 'squash'"):
        load_pretrained(folders["janus"], CodecOptions(fit="squash"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*SOUND, *PICTURE])
def test_training_mode_and_codes_out_of_range_are_refused(
    codecs: dict[str, Any], name: str
) -> None:
    codec = codecs[name]
    shown = picture(0) if name in PICTURE else clips(codec)[3]
    coded = codec.encode(shown)
    codec.model.train()
    try:
        for call in (lambda: codec.encode(shown), lambda: codec.encode_batch([shown])):
            with pytest.raises(ValueError, match="is in training mode"):
                call()
    finally:
        codec.model.eval()
    assert equal(codec.encode(shown), coded)
    if codec.facts.decodes:
        low, high = coded.codes.copy(), coded.codes.copy()
        low[0, 0], high[-1, -1] = -1, codec.facts.codebook_size
        wrong = (low, high, coded.codes.astype(float), coded.codes[:0], coded.codes[:, :0])
        for codes in (*wrong, coded.codes[:, 0]):
            with pytest.raises(InputError, match="codes of"):
                codec.decode(replace(coded, codes=codes))


@pytest.mark.parametrize("name", ["encodec", "janus"])
def test_shortcuts_and_threads_around_it_change_nothing(codecs: dict[str, Any], name: str) -> None:
    codec, before = codecs[name], torch.get_num_threads()
    media = [picture(i) for i in range(3)] if name == "janus" else clips(codec)[2:]
    wanted = [codec.encode(one) for one in media]
    try:
        torch.set_num_threads(2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = codec.encode_batch(media) + [codec.encode(one) for one in media]
    finally:
        torch.set_num_threads(before)
    assert all(equal(a, b) for a, b in zip(found, wanted * 2, strict=True))
