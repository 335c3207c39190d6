"""Codes of batches: those of each alone, also where company moves what decides between two."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lumoomni.codecs import company, image_tokens, image_vq, speech_rvq, speech_tokens
from lumoomni.codecs.company import NEAR, Steps, in_company, product
from lumoomni.codecs.facts import Coded
from lumoomni.codecs.image_tokens import ImageTokens
from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.codecs.ink_form import InkAndForm
from lumoomni.codecs.quantiser import clear_nearest, margins, nearest
from lumoomni.codecs.scalar import ScalarQuantiser
from lumoomni.codecs.speech_rvq import SpeechCodec, SpeechCodecConfig
from lumoomni.codecs.speech_tokens import ROOM, SpeechTokens, packs
from lumoomni.data.world.scene import draw, make_scene
from lumoomni.errors import InputError
from lumoomni.media.image import normalise
from lumoomni.media.mel import MelConfig, log_mel

PICTURES = [draw(make_scene(0, "seen", i)) for i in range(20)]
DRIFT = 2e-6
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


def ordinary() -> ImageTokens:
    """Codes that lie anywhere."""
    torch.manual_seed(0)
    codec = ImageCodec(ImageCodecConfig(fine_width=8, width=16, codebook_size=64)).eval()
    codec.quantiser.codebooks.normal_()
    return ImageTokens(codec, "a" * 64)


def spoken_apart() -> SpeechTokens:
    """The same for sounds."""
    tokens = spoken()
    for book in tokens._codec.quantiser.codebooks:
        book.copy_(book.std() * torch.randn(book.shape))
    return tokens


def _pairs(book: Tensor, vectors: Tensor) -> None:
    chosen = vectors.detach()[torch.randperm(len(vectors))[: len(book) // 2]]
    aside = 0.05 * torch.randn(chosen.shape)
    book.copy_(torch.cat([chosen + aside, chosen - aside]))


def moved(told: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What a codec finds in company, moved by DRIFT of the longest vector: of pictures of each its
    own, of a row of clips of the shortest clip's, whose silence between clips is left out."""

    def found(*given: Tensor) -> Tensor:
        x = told(*given)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(x.shape[-2]))
        noise = noise / noise.norm(dim=-1, keepdim=True)
        length = x.norm(dim=-1)
        longest = length.amax(-1) if x.ndim == 3 else _least_of_clips(length, given[1])
        return x + DRIFT * longest[..., None, None] * noise

    return found


def _least_of_clips(length: Tensor, mask: Tensor) -> Tensor:
    """The longest vector of that clip which has the shortest one; `mask` is False between clips."""
    ends = [-1, *(~mask).nonzero()[:, 0].tolist(), len(mask)]
    spans = [(a + 1, b) for a, b in itertools.pairwise(ends) if b > a + 1]
    return torch.stack([length[a:b].amax() for a, b in spans]).amin()


def same(a: Sequence, b: Sequence) -> bool:  # type: ignore[type-arg]
    return all(np.array_equal(x.codes, y.codes) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("make", [learned, levelled, spoken])
def test_codes_are_kept_when_company_moves_what_they_are_told_by(
    make: Callable[[], ImageTokens | SpeechTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = make()
    media = PICTURES if isinstance(tokens, ImageTokens) else CLIPS
    alone = [tokens.encode(one) for one in media]  # type: ignore[arg-type]

    def together() -> list[Coded]:
        return tokens.encode_batch(media)  # type: ignore[arg-type]

    assert same(together(), alone)
    monkeypatch.setattr(tokens._codec, "_among", moved(tokens._codec._among))
    assert same(together(), alone)
    monkeypatch.setattr(image_tokens, "NEAR", -1.0)
    monkeypatch.setattr(speech_tokens, "NEAR", -1.0)
    assert not same(together(), alone), "nothing was near a border"


def test_borders_of_clips_are_as_near_as_their_own_longest_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codec, seen = spoken()._codec, []

    def spy(left: Tensor, book: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(reach)
        return clear_nearest(left, book, reach)

    monkeypatch.setattr(speech_rvq, "clear_nearest", spy)
    mels = [log_mel(torch.from_numpy(one)[None], MelConfig())[0] for one in CLIPS[:3]]
    codec.encode_clear(mels, 0.01)
    places = codec._packed(mels)[2]
    assert len(seen) == 2 and torch.equal(seen[0], seen[1])
    for mel, place in zip(mels, places, strict=True):
        parts = codec._fold(mel[None], torch.tensor([len(mel)]))
        longest = codec._latents(*parts)[0].norm(dim=-1).max().item()
        torch.testing.assert_close(seen[0][place], torch.full_like(seen[0][place], 0.01 * longest))


@pytest.mark.parametrize("make", [learned, levelled])
def test_borders_of_pictures_are_as_near_as_their_own_longest_vectors(
    make: Callable[[], ImageTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, pixels = make()._codec, normalise(PICTURES[:3])
    length = codec._encoded(pixels).norm(dim=-1).detach()
    reach = (0.01 * length.amax(1, keepdim=True)).expand_as(length)
    if isinstance(codec.quantiser, ScalarQuantiser):
        for factor, clear in ((1.01, True), (0.99, False)):
            monkeypatch.setattr(codec.quantiser, "room", lambda _, by=factor: by * reach)
            assert codec.encode_clear(pixels, 0.01)[1].tolist() == [clear] * 3
        return
    seen: list[Tensor] = []
    told = torch.zeros(length.shape, dtype=torch.long), torch.ones(length.shape, dtype=torch.bool)
    monkeypatch.setattr(image_vq, "clear_nearest", lambda *given: seen.append(given[2]) or told)
    codec.encode_clear(pixels, 0.01)
    torch.testing.assert_close(seen[0], reach * codec.config.code_width**0.5 / length)


@pytest.mark.parametrize("make", [ordinary, spoken_apart])
def test_most_are_coded_once(
    make: Callable[[], ImageTokens | SpeechTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches would be of no use if every medium were near some border."""
    tokens, again = make(), []
    media = PICTURES if isinstance(tokens, ImageTokens) else CLIPS
    alone: Callable[..., object] = tokens._alone
    monkeypatch.setattr(tokens, "_alone", lambda one: again.append(1) or alone(one))
    tokens.encode_batch(media)  # type: ignore[arg-type]
    assert len(again) < len(media) // 2


def test_a_row_of_clips_finds_what_each_finds_alone() -> None:
    """Within rounding: what stands next to a clip, and how long the row is, say nothing to it."""
    codec = spoken()._codec
    mels = [log_mel(torch.from_numpy(one)[None], MelConfig())[0] for one in CLIPS[:7]]
    for some in (mels, mels[::-1], mels[:2]):
        row, mask, places = codec._packed(some)
        found = codec._among(row, mask)
        for mel, place in zip(some, places, strict=True):
            parts = codec._fold(mel[None], torch.tensor([len(mel)]))
            wanted = codec._latents(*parts)[0]
            longest = wanted.norm(dim=-1).max()
            assert (found[place] - wanted).norm(dim=-1).max() < DRIFT * longest
        assert mask.sum() == sum(place.stop - place.start for place in places)


def test_pictures_together_find_what_each_finds_alone() -> None:
    codec = levelled()._codec
    pixels = normalise(PICTURES)
    found = codec._among(pixels)
    for one, together in zip(pixels, found, strict=True):
        wanted = codec._encoded(one[None])[0]
        longest = wanted.norm(dim=-1).max()
        assert (together - wanted).norm(dim=-1).max() < DRIFT * longest


@pytest.mark.parametrize("shape", [(5, 12), (2, 5, 12)])
@pytest.mark.parametrize("there", [True, False])
def test_a_product_is_a_linear_layer(
    shape: tuple[int, ...], there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not there:  # a torch without oneDNN
        monkeypatch.setattr(company, "_ONEDNN", None)
    x, weight, bias = torch.randn(shape), torch.randn(7, 12), torch.randn(7)
    for given_ in (None, bias):
        wanted = F.linear(x.double(), weight.double(), None if given_ is None else bias.double())
        found = product(x, weight, given_).double()
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_what_is_bad_is_said_before_anything_is_coded() -> None:
    with pytest.raises(InputError, match="uint8"):
        learned().encode_batch([PICTURES[0], np.zeros((4, 4), dtype=np.uint8)])
    with pytest.raises(InputError, match="no frame"):
        spoken().encode_batch([CLIPS[0], np.zeros(3, dtype=np.float32)])
    assert learned().encode_batch([]) == [] and spoken().encode_batch([]) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_only_the_unsure_are_coded_alone_and_a_lone_one_is(threads: int) -> None:
    made: list[int] = []
    asked: list[int] = []

    def ready(one: int) -> int:
        made.append(one)
        return 10 * one

    def together(group: Sequence[int]) -> list[int | None]:
        return [None if one % 3 == 0 else -one for one in group]

    def alone(one: int) -> int:
        asked.append(one)
        assert not torch.is_grad_enabled() and torch.get_num_threads() == 1
        return -one

    module, before = torch.nn.Linear(1, 1).eval(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        steps = Steps(ready, alone, together)
        found = in_company([[1, 2, 3], [4], [5, 6]], steps, module, "codec")
        assert torch.get_num_threads() == threads
        with pytest.raises(ValueError, match="codec is in training mode"):
            in_company([[1]], steps, module.train(), "codec")
    finally:
        torch.set_num_threads(before)
    assert found == [-10, -20, -30, -40, -50, -60]
    assert sorted(asked) == [30, 40, 60] and sorted(made) == [1, 2, 3, 4, 5, 6]


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=50), st.integers(1, 500))
@example([1] * 3 * ROOM, 1000)
def test_groups_are_whole_and_small(lengths: list[int], most: int) -> None:
    groups = packs(lengths, most)
    assert [i for group in groups for i in group] == list(range(len(lengths)))
    for place, group in enumerate(groups):
        size = sum(lengths[i] for i in group)
        assert len(group) == 1 or (len(group) <= ROOM and size <= most)
        if place + 1 < len(groups):
            assert len(group) == ROOM or size + lengths[group.stop] > most, "not filled"


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


def test_rows_that_are_almost_one_are_not_clear() -> None:
    """Scores of two rows may round to either order, however far the vector is from the border."""
    torch.manual_seed(0)
    vectors = torch.randn(500, 32)
    row = torch.randn(32)
    book = torch.stack([row, row + 1e-7, -row])
    index, clear = clear_nearest(vectors, book, torch.full((500,), 1e-9))
    close = index < 2
    assert close.any() and not clear[close].any()
    assert clear[~close].all() and (~close).any()


def test_room_of_levels() -> None:
    quantiser = ScalarQuantiser((3, 4))
    raw = torch.tensor([[0.0, 0.5], [0.0, 1e-4], [0.5493, 0.5]])  # 0.5493 = atanh(0.5), a border
    room = quantiser.room(quantiser.bound(raw))
    assert room[0] > 0.1
    assert room[1] == pytest.approx(1e-4, rel=2e-2) and room[1] < 1e-4, "rounding is taken off"
    assert room[2] < 1e-4
    assert quantiser.room(torch.tensor([[0.0, 5e-7]])) < 0, "it may be rounded either way"
