"""Codecs work where they are: on `meta`, which has no values, a part left behind is an error."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lumoomni.codecs.facts import Coded
from lumoomni.codecs.image_tokens import ImageTokens
from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.codecs.quantiser import ResidualQuantiser
from lumoomni.codecs.speech_rvq import SpeechCodec, SpeechCodecConfig
from lumoomni.codecs.speech_tokens import SpeechTokens
from lumoomni.codecs.stored import load_codecs
from lumoomni.errors import InputError
from lumoomni.infer.tokens import build_tokens
from lumoomni.media.audio import Audio
from lumoomni.media.mel import MelConfig
from lumoomni.uti.interface import UTI
from tests.tiny import write_model

PICTURE = np.zeros((20, 30, 3), dtype=np.uint8)
NOISE = np.random.default_rng(0).standard_normal(4000).astype(np.float32) * 0.1
CODEC = ImageCodecConfig(
    image_size=32, fine_width=8, width=16, code_width=8, codebook_size=32, depth=1
)
SPEECH = SpeechCodecConfig(n_mels=80, stride=4, width=24, code_width=8, codebook_size=16, depth=1)


def picture_codec(device: str) -> ImageTokens:
    torch.manual_seed(0)
    codec = ImageCodec(CODEC).eval()
    codec.quantiser.codebooks.normal_()
    return ImageTokens(codec.to(device), "0")


def speech_codec(device: str) -> SpeechTokens:
    torch.manual_seed(0)
    codec = SpeechCodec(SPEECH).eval()
    codec.quantiser.codebooks.normal_()
    return SpeechTokens(codec.to(device), MelConfig(), "0")


@pytest.fixture()
def meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `meta` cannot do besides: automatic types, and looking at values."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(ResidualQuantiser, "lookup", lookup)


def lookup(self: ResidualQuantiser, codes: torch.Tensor) -> torch.Tensor:
    """As the quantiser's, but for the look at the values."""
    return sum(self.codebooks[q][codes[..., q]] for q in range(codes.shape[-1]))  # type: ignore


@pytest.mark.parametrize(("made", "media", "codes"), [
    (picture_codec, PICTURE, np.zeros((CODEC.tokens, 1), dtype=np.int64)),
    (speech_codec, NOISE, np.zeros((9, 2), dtype=np.int64)),
])  # fmt: skip
def test_all_that_a_codec_does_is_done_where_it_is(
    made: Any, media: np.ndarray, codes: np.ndarray, meta: None
) -> None:
    """Everything went through there, up to the copy back, which is all that `meta` cannot do."""
    codec = made("meta")
    for done in (
        lambda: codec.encode(media),
        lambda: codec.margins(media),
        lambda: codec.decode(Coded(codes)),
    ):
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            done()


def test_a_space_opens_on_a_device_that_is_here(
    tmp_path: Path, meta: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_tokens(write_model(tmp_path / "model"), tmp_path / "space")
    asked = []

    def resolve(name: str) -> torch.device:
        asked.append(name)
        return torch.device("meta" if name == "auto" else name)

    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(InputError, match=f"device '{absent}' is not available here"):
        UTI.load(tmp_path / "space", device=absent)
    here, plain = (UTI.load(tmp_path / "space", **more) for more in ({"device": "cpu"}, {}))
    sound = Audio(NOISE, 16000)
    assert np.array_equal(here.encode(sound).ids, plain.encode(sound).ids)
    monkeypatch.setattr("lumoomni.codecs.stored.resolve_device", resolve)
    there = UTI.load(tmp_path / "space", device="auto")
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        there.encode(sound)
    load_codecs(tmp_path / "space")
    assert asked == ["auto", "cpu"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_nearly_the_same() -> None:
    for made, media in ((picture_codec, PICTURE), (speech_codec, NOISE)):
        here, there = made("cpu").encode(media), made("cuda").encode(media)
        assert (here.codes == there.codes).mean() > 0.99
        one, other = (np.asarray(getattr(x, "samples", x)) for x in (
            made("cpu").decode(here), made("cuda").decode(here)
        ))  # fmt: skip
        assert np.abs(one.astype(float) - other).max() < 2
