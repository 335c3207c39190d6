"""The audit of token spaces: sound codecs pass, and each planted fault is found and named."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lumoomni.audits.token_codes import drift, in_training, other_threads
from lumoomni.audits.token_inputs import Inputs
from lumoomni.audits.token_process import Elsewhere
from lumoomni.audits.tokens import TokenAuditConfig, checks
from lumoomni.codecs.facts import Coded
from lumoomni.codecs.speech_tokens import SpeechTokens
from lumoomni.gates import Report, judge
from lumoomni.media.audio import Audio
from lumoomni.uti import interface
from lumoomni.uti.space import flatten
from tests.audits.token_stand_ins import (
    RATE,
    CellCodec,
    StepCodec,
    failed,
    fitted_codec,
    fresh,
    inputs,
    judged,
    space_of,
)
from tests.tiny import MEL

SMALL = inputs(pictures=3, sounds=2)


def run(*codecs: Any, elsewhere: Any = None) -> tuple[set[str], dict[str, str], Report]:
    """(checks that failed, notes, report) of a space of these codecs."""
    found, verdict = judged(space_of(*codecs), SMALL, elsewhere)
    return failed(verdict), found.report.notes, found.report


def test_sound_codecs_pass_and_every_number_has_its_count() -> None:
    found, verdict = judged(space_of(CellCodec(), StepCodec()), SMALL)
    assert verdict.passed, verdict.failures()
    metrics = found.report.metrics
    samples = sum(-(-len(one.samples) // 4) for one in SMALL.sounds)  # 16 kHz to 8 kHz, hop 2
    for way in ("again", "threads", "process"):
        assert metrics[f"audio.drift.{way}.cb1"].n == pytest.approx(samples, abs=4)
        assert metrics[f"image.drift.{way}"].n == 3 * 64
    assert metrics["audio.drift.company.cb0"].n == 2 * metrics["audio.drift.again.cb0"].n
    assert metrics["audio.drift.again"].high is not None
    assert metrics["audio.margin.cb1.p50"].value == 0.25
    assert not [name for name in metrics if name.startswith("image.margin")]
    assert metrics["image.psnr"].value > 15 and metrics["image.psnr"].n == 3
    assert metrics["image.ssim"].value > 0.4 and metrics["audio.snr_db"].value > 5
    assert len(found.pairs["image"]) == 3 and len(found.coded["audio"]) == 2


class Noisy(StepCodec):
    """Draws a code now and then."""

    def encode(self, samples: np.ndarray) -> Coded:
        codes = super().encode(samples).codes
        codes[::50, 1] = np.random.default_rng().integers(0, 16, len(codes[::50]))
        return Coded(codes)


def test_a_codec_that_draws_is_found() -> None:
    wrong, notes, report = run(Noisy())
    ways = ("again", "company", "threads", "process")
    assert {f"audio.drift.{way}.cb1" for way in ways} <= wrong
    assert not {f"audio.drift.{way}.cb0" for way in ways} & wrong
    assert 0.01 < report.metrics["audio.drift.again.cb1"].value < 0.03
    assert "codebook 1: " in notes["audio.drift.again"]


class Sociable(StepCodec):
    """Gives other codes to the second of a batch."""

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        made = super().encode_batch(media)
        return [made[0], *(Coded(np.roll(one.codes, 1, 0)) for one in made[1:])]


class Threaded(StepCodec):
    """Gives other codes with another number of threads."""

    def encode(self, samples: np.ndarray) -> Coded:
        codes = super().encode(samples).codes
        return Coded((codes + torch.get_num_threads() % 2) % 16)


class Failing(StepCodec):
    """Its batches are broken."""

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        raise RuntimeError("no room for a batch")


@pytest.mark.parametrize(("codec", "way"), [(Sociable, "company"), (Threaded, "threads")])
def test_company_and_threads_are_told_apart(codec: type[StepCodec], way: str) -> None:
    wrong, _, report = run(codec(), elsewhere=fresh(codec()))
    drifted = {name.split(".")[2] for name in wrong if ".drift." in name}
    assert drifted == {way} and report.metrics[f"audio.drift.{way}"].value > 0.2


def test_batches_that_fail_are_not_forgiven() -> None:
    wrong, notes, _ = run(Failing())
    assert "audio.drift.company" in wrong and "no room" in notes["audio.drift.company"]


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with other_threads():
        assert torch.get_num_threads() != before
    assert torch.get_num_threads() == before


def test_another_process_that_differs_or_fails_is_found() -> None:
    class Other(StepCodec):
        def encode(self, samples: np.ndarray) -> Coded:
            return Coded(np.roll(super().encode(samples).codes, 1, 0))

    wrong, _, _ = run(StepCodec(), elsewhere=fresh(Other()))
    assert {name for name in wrong if ".drift." in name} == {
        f"audio.drift.process{end}" for end in ("", ".cb0", ".cb1")
    }

    def dead(media: Any, texts: Any) -> Elsewhere:
        return Elsewhere(coded={}, texts=[], facts={}, problem="it ended with 2")

    wrong, notes, _ = run(StepCodec(), elsewhere=dead)
    assert {"audio.drift.process", "audio.facts", "text.process"} <= wrong
    assert notes["process"] == "it ended with 2"


def speech() -> SpeechTokens:
    return SpeechTokens(fitted_codec(), MEL, "c" * 64)


def test_a_codec_in_training_mode_is_found() -> None:
    codec = speech()
    uti = space_of(codec)
    codec._codec.train()
    found, verdict = judged(uti, SMALL, fresh(speech()))
    assert {"audio.training", "audio.encoded", "audio.drift.again"} <= failed(verdict)
    assert "in training mode: _codec" in found.report.notes["audio.training"]
    assert "training mode" in found.report.notes["audio.encoded"]


def test_training_mode_is_seen_where_the_codec_does_not_look() -> None:
    class Careless(StepCodec):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()

    codec = Careless()
    assert in_training(codec) == []
    codec.model[1].train()
    wrong, notes, _ = run(codec)
    assert wrong == {"audio.training"} and "model.1" in notes["audio.training"]


def test_weights_that_changed_after_the_space_was_made_are_found() -> None:
    codec = speech()
    uti = space_of(codec)
    assert judged(uti, SMALL, fresh(speech()))[1].passed
    with torch.no_grad():
        codec._codec.quantiser.codebooks[1].add_(0.3)
    _, verdict = judged(uti, SMALL, fresh(speech()))
    assert "audio.drift.process.cb1" in failed(verdict)
    assert "audio.drift.again" not in failed(verdict)
    other = speech()
    other.facts = replace(other.facts, weights="d" * 64)
    found, verdict = judged(space_of(speech()), SMALL, fresh(other))
    assert failed(verdict) == {"audio.facts"}
    assert "weights is dddddddddddd, the space says cccccccccccc" in str(found.report.notes)


@pytest.mark.parametrize("shift", [1, -1, 16])
def test_a_shifted_range_is_found(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "flatten", lambda codes, books: flatten(codes, books) + shift)
    wrong, _, report = run(CellCodec(), StepCodec())
    assert {"image.ids.equal", "audio.ids.equal", "audio.ids.back"} <= wrong
    assert report.metrics["audio.ids.equal"].value == 0
    assert "audio.ids.inside" in wrong or shift < 16


def test_swapped_codebooks_are_found_in_the_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(codes: np.ndarray, books: Any) -> np.ndarray:
        ids = flatten(codes, books).reshape(-1, len(books))
        return ids[:, ::-1].reshape(-1)

    monkeypatch.setattr(interface, "flatten", swapped)
    wrong, _, report = run(StepCodec())
    assert {"audio.ids.inside", "audio.ids.equal", "audio.ids.back"} <= wrong
    assert report.metrics["audio.ids.inside"].value == 0


def test_swapped_codebooks_are_found_in_a_codec() -> None:
    """Every id is in its range and every time the same; only decoding shows it."""

    class Swapped(StepCodec):
        def encode(self, samples: np.ndarray) -> Coded:
            return Coded(super().encode(samples).codes[:, ::-1].copy())

    wrong, _, report = run(Swapped(), elsewhere=fresh(Swapped()))
    assert "audio.order" in wrong and report.metrics["audio.order"].value == 0
    assert not {name for name in wrong if ".drift." in name or ".ids." in name}


def test_codes_or_tables_of_another_size_are_found() -> None:
    class Wide(StepCodec):
        def encode(self, samples: np.ndarray) -> Coded:
            codes = super().encode(samples).codes
            codes[0, 0] = 16
            return Coded(codes)

    wrong, notes, _ = run(Wide(), elsewhere=fresh(Wide()))
    assert {"audio.sizes.codes", "audio.ids.inside"} <= wrong
    assert "books hold" in notes["audio.ids.inside"]

    class Narrow(CellCodec):
        def decode(self, coded: Coded) -> np.ndarray:
            if coded.codes.max() >= 40:
                raise IndexError("40 entries")
            return super().decode(coded)

    class Endless(CellCodec):
        def decode(self, coded: Coded) -> np.ndarray:
            return super().decode(Coded(coded.codes % 64))

    assert "image.sizes.top" in run(Narrow())[0]
    assert run(Endless())[0] == {"image.sizes.beyond"}


def test_a_picture_of_another_number_of_codes_is_found() -> None:
    class Short(CellCodec):
        def encode(self, picture: np.ndarray) -> Coded:
            return Coded(super().encode(picture).codes[:-1])

    assert {"image.ids.count", "image.decode.made"} <= run(Short(), elsewhere=fresh(Short()))[0]


class Decoder(StepCodec):
    """Decodes sound and then does something to it."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def decode(self, coded: Coded) -> Any:
        return self.change(super().decode(coded))


def bad(sound: Audio) -> Audio:
    samples = sound.samples.copy()
    samples[5] = np.nan
    return Audio(samples, sound.rate)


@pytest.mark.parametrize(
    ("change", "metric", "note"),
    [
        (lambda s: Audio(s.samples, 2 * RATE), "rate", "decoded at 16000 Hz, the facts say 8000"),
        (lambda s: Audio(s.samples[:-3], RATE), "length", "samples from the original's length"),
        (lambda s: Audio(np.pad(s.samples, (0, 99)), RATE), "length", "a frame is 2"),
        (lambda s: Audio(np.stack([s.samples] * 2, 1), RATE), "channels", "decoded 2 channels"),
        (bad, "finite", "NaN"),
        (lambda s: s.samples, "made", "gave ndarray, not sound"),
    ],
)
def test_sound_of_another_form_is_found(change: Any, metric: str, note: str) -> None:
    wrong, notes, _ = run(Decoder(change))
    assert f"audio.decode.{metric}" in wrong and note in notes[f"audio.decode.{metric}"]


@pytest.mark.parametrize(
    ("change", "metric"),
    [
        (lambda p: p[:, :32], "size"),
        (lambda p: p.repeat(2, 0).repeat(2, 1), "size"),
        (lambda p: p.astype(np.float32), "made"),
    ],
)
def test_pictures_of_another_form_are_found(change: Any, metric: str) -> None:
    class Changed(CellCodec):
        def decode(self, coded: Coded) -> Any:
            return change(super().decode(coded))

    assert f"image.decode.{metric}" in run(Changed())[0]


def test_decoding_that_draws_or_ignores_its_codes_is_found() -> None:
    stream = np.random.default_rng(0)
    noise = Decoder(
        lambda s: Audio(stream.normal(size=s.samples.shape).astype(np.float32) / 9, RATE)
    )
    assert "audio.decode.same" in run(noise)[0]

    class Grey(CellCodec):
        def decode(self, coded: Coded) -> np.ndarray:
            rows = np.linspace(0, 255, 64).astype(np.uint8)
            return super().decode(coded) * 0 + rows[:, None, None]

    found = run(Grey())[2].metrics["image.own"]
    assert found.value < 0.9, found

    class Flat(CellCodec):
        def decode(self, coded: Coded) -> np.ndarray:
            return super().decode(coded) * 0 + np.uint8(128)

    assert run(Flat())[2].metrics["image.own"].value == 0.0


def test_a_codec_that_only_encodes_is_not_asked_to_decode() -> None:
    codec = CellCodec()
    codec.facts = replace(codec.facts, decodes=False)
    wrong, notes, report = run(codec)
    assert not wrong and "only encodes" in notes["image.decode"]
    assert "image.psnr" not in report.metrics


def test_an_empty_list_of_inputs_fails() -> None:
    uti = space_of(CellCodec(), StepCodec())
    for empty, kind in (
        (replace(SMALL, sounds=()), "audio"),
        (replace(SMALL, pictures=()), "image"),
    ):
        _, verdict = judged(uti, empty)
        assert f"{kind}.encoded" in failed(verdict)
        assert all(name.startswith(kind) for name in failed(verdict))
    _, verdict = judged(uti, Inputs())
    assert {"text.back", "image.encoded", "audio.encoded"} <= failed(verdict)


def test_every_check_fails_on_an_empty_report() -> None:
    wanted = checks(space_of(CellCodec(), StepCodec()).space, TokenAuditConfig())
    verdict = judge(Report(), wanted)
    assert len(wanted) > 40 and all("was not measured" in one for one in verdict.failures())
    assert len({one.metric for one in wanted}) == len(wanted) == len(verdict.failures())


def test_drift_counts_codes_by_codebook() -> None:
    facts = StepCodec().facts
    first = [Coded(np.zeros((10, 2), np.int64)), Coded(np.zeros((30, 2), np.int64))]
    other = [Coded(one.codes.copy()) for one in first]
    other[1].codes[4, 1] = 7
    found = drift(facts, "again", first, other)
    assert found.metrics["audio.drift.again"].value == 1 / 80
    assert found.metrics["audio.drift.again.cb1"].value == 1 / 40
    assert found.metrics["audio.drift.again.cb0"].value == 0
    assert found.notes["audio.drift.again"] == "input 1, frame 4, codebook 1: 0 became 7"
    short = [first[0], Coded(np.zeros((29, 2), np.int64))]
    assert drift(facts, "again", first, short).metrics["audio.drift.again"].value == 60 / 80
    assert drift(facts, "again", first, first[:1]).metrics["audio.drift.again"].value == 1
    sided = replace(facts, side=("scale",))
    moved = [Coded(one.codes, {"scale": place}) for place, one in enumerate(first)]
    found = drift(sided, "again", moved, [moved[0], Coded(first[1].codes, {"scale": 5})])
    assert found.metrics["audio.side.again"].value == 0.5
    space = space_of(CellCodec()).space
    assert "audio.side.again" in {
        one.metric for one in checks(space.with_codec(sided), TokenAuditConfig())
    }
