"""Codes of batches: those of each alone, also where company moves what decides between two."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lumoomni.codecs import image_tokens, speech_tokens
from lumoomni.codecs.company import NEAR, ROOM, in_company
from lumoomni.codecs.image_tokens import ImageTokens
from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.codecs.ink_form import InkAndForm
from lumoomni.codecs.quantiser import clear_nearest, margins, nearest
from lumoomni.codecs.scalar import ScalarQuantiser
from lumoomni.codecs.speech_rvq import SpeechCodec, SpeechCodecConfig
from lumoomni.codecs.speech_tokens import SpeechTokens, alike
from lumoomni.data.world.scene import draw, make_scene
from lumoomni.errors import InputError
from lumoomni.media.image import normalise
from lumoomni.media.mel import MelConfig, log_mel

PICTURES = [draw(make_scene(0, "seen", i)) for i in range(20)]
DRIFT = 1e-6
"""Of the longest vector: more than any company was seen to move one."""


def clips() -> list[np.ndarray]:
    stream = np.random.default_rng(0)
    return [
        (0.1 * stream.standard_normal(int(n))).astype(np.float32)
        for n in stream.integers(1600, 24_000, 20)
    ]


CLIPS = clips()


def learned() -> ImageTokens:
    """A learned codebook with codes in pairs on both sides of what pictures have."""
    torch.manual_seed(0)
    codec = ImageCodec(ImageCodecConfig(fine_width=8, width=16, codebook_size=200)).eval()
    vectors = codec._vectors(normalise(PICTURES[:4])).flatten(0, 1)
    _pairs(codec.quantiser.codebooks[0], vectors)
    return ImageTokens(codec, "a" * 64)


def levelled() -> ImageTokens:
    """Digits of which many lie on a border: of an even number of levels it is at 0, and what the
    empty cells of each picture have is put there, near enough."""
    torch.manual_seed(0)
    shape = ImageCodecConfig(
        width=16, depth=1, code_width=4, levels=(6, 6, 6, 6), codebook_size=1296, ink_digits=2
    )
    codec = ImageCodec(shape).eval()
    with torch.no_grad():
        found = codec._encoded(normalise(PICTURES))[0, 0]
        assert isinstance(codec.encoder, InkAndForm)
        for net, part in ((codec.encoder.ink, found[:2]), (codec.encoder.form, found[2:])):
            last = list(net)[-1]
            assert isinstance(last, torch.nn.Linear)
            last.bias.sub_(part)
    return ImageTokens(codec, "a" * 64)


def spoken() -> SpeechTokens:
    """Two codebooks with codes in pairs on both sides of what the clips have."""
    torch.manual_seed(0)
    mel = MelConfig()
    codec = SpeechCodec(SpeechCodecConfig(n_mels=mel.n_mels, width=16, code_width=8)).eval()
    heard = [log_mel(torch.from_numpy(one)[None], mel) for one in CLIPS[:4]]
    parts = [codec._fold(one, torch.tensor([one.shape[1]])) for one in heard]
    left = torch.cat([codec._latents(*part)[0] for part in parts]).detach()
    for book in codec.quantiser.codebooks:
        _pairs(book, left)
        left = left - book[nearest(left, book)]
    return SpeechTokens(codec, mel, "a" * 64)


def _pairs(book: Tensor, vectors: Tensor) -> None:
    chosen = vectors.detach()[torch.randperm(len(vectors))[: len(book) // 2]]
    aside = 0.05 * torch.randn(chosen.shape)
    book.copy_(torch.cat([chosen + aside, chosen - aside]))


def moved(told: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What a codec finds, moved by DRIFT of its longest vector wherever there is company."""

    def found(*given: Tensor) -> Tensor:
        x = told(*given)
        if len(x) == 1:
            return x
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(len(x)))
        noise = noise / noise.norm(dim=-1, keepdim=True)
        return x + DRIFT * x.norm(dim=-1).amax(1)[:, None, None] * noise

    return found


def same(a: Sequence, b: Sequence) -> bool:  # type: ignore[type-arg]
    return all(np.array_equal(x.codes, y.codes) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("make", [learned, levelled])
def test_pictures_keep_their_codes_when_company_moves_them(
    make: Callable[[], ImageTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = make()
    alone = [tokens.encode(one) for one in PICTURES]
    monkeypatch.setattr(tokens._codec, "_encoded", moved(tokens._codec._encoded))
    assert same(tokens.encode_batch(PICTURES), alone)
    monkeypatch.setattr(image_tokens, "NEAR", -1.0)
    assert not same(tokens.encode_batch(PICTURES), alone), "nothing was near a border"


def test_clips_keep_their_codes_when_company_moves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = spoken()
    alone = [tokens.encode(one) for one in CLIPS]
    assert same(tokens.encode_batch(CLIPS), alone)
    monkeypatch.setattr(tokens._codec, "_latents", moved(tokens._codec._latents))
    assert same(tokens.encode_batch(CLIPS), alone)
    monkeypatch.setattr(speech_tokens, "NEAR", -1.0)
    assert not same(tokens.encode_batch(CLIPS), alone), "nothing was near a border"


def test_most_are_coded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches would be of no use if every medium were near some border."""
    torch.manual_seed(0)
    codec = ImageCodec(ImageCodecConfig(fine_width=8, width=16, codebook_size=64)).eval()
    codec.quantiser.codebooks.normal_()
    tokens, again = ImageTokens(codec, "a" * 64), []
    encode = tokens.encode
    monkeypatch.setattr(tokens, "encode", lambda one: again.append(1) or encode(one))
    tokens.encode_batch(PICTURES)
    assert len(again) < len(PICTURES) // 2


def test_what_is_bad_is_said_before_anything_is_coded() -> None:
    with pytest.raises(InputError, match="uint8"):
        learned().encode_batch([PICTURES[0], np.zeros((4, 4), dtype=np.uint8)])
    with pytest.raises(InputError, match="no frame"):
        spoken().encode_batch([CLIPS[0], np.zeros(3, dtype=np.float32)])
    assert learned().encode_batch([]) == [] and spoken().encode_batch([]) == []


def test_only_the_unsure_are_coded_alone_and_a_lone_one_is() -> None:
    asked: list[int] = []

    def together(group: Sequence[int]) -> list[int | None]:
        return [None if one % 3 == 0 else -one for one in group]

    def alone(one: int) -> int:
        asked.append(one)
        return -one

    module = torch.nn.Linear(1, 1)
    assert in_company([[1, 2, 3], [4], [5, 6]], together, alone, module) == [-1, -2, -3, -4, -5, -6]
    assert sorted(asked) == [3, 4, 6]


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 200))
def test_groups_are_whole_and_small(lengths: list[int], most: int) -> None:
    lengths = sorted(lengths)
    groups = alike(lengths, most)
    assert [i for group in groups for i in group] == list(range(len(lengths)))
    for group in groups:
        assert len(group) <= ROOM
        assert len(group) == 1 or len(group) * lengths[group[-1]] <= most


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 30))
def test_clear_means_what_it_says(seed: int, count: int, rows: int) -> None:
    """Beside the distances of the two nearest rows, written out in float64."""
    torch.manual_seed(seed)
    vectors, book = torch.randn(count, 4), torch.randn(rows, 4)
    reach = 10 ** (-4 * torch.rand(count))
    index, clear = clear_nearest(vectors, book, reach)
    assert torch.equal(index, nearest(vectors, book))
    chosen = book[index].double()
    apart = chosen[:, None] - book[None].double()
    length = apart.norm(dim=-1)
    middle = (chosen[:, None] + book[None].double()) / 2
    border = ((vectors.double()[:, None] - middle) * apart).sum(-1) / length
    border[torch.arange(count), index] = torch.inf
    nearest_border = border.amin(-1)
    sure = (nearest_border / reach - 1).abs() > 1e-3
    assert torch.equal(clear[sure], (nearest_border > reach)[sure])
    near = margins(vectors[None], book[None])[0, :, 0] <= 0
    assert not clear[near].any()


def test_rows_that_are_one_or_no_numbers_are_never_clear() -> None:
    book = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    given_ = torch.tensor([[1.0, 0.1], [-1.0, 0.1], [torch.nan, 0.0]])
    clear = clear_nearest(given_, book, torch.full((3,), NEAR))[1]
    assert clear.tolist() == [False, True, False]


def test_room_of_levels() -> None:
    quantiser = ScalarQuantiser((3, 4))
    raw = torch.tensor([[0.0, 0.5], [0.0, 1e-4], [0.5493, 0.5]])  # 0.5493 = atanh(0.5), a border
    room = quantiser.room(quantiser.bound(raw))
    assert room[0] > 0.1
    assert room[1] == pytest.approx(1e-4, rel=1e-2)
    assert room[2] < 1e-4
