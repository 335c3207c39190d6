"""Reports of token audits: compared with another run's, never with their own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lumoomni.audits.token_report import (
    PASS,
    RULES,
    Baseline,
    Run,
    codes_digest,
    compare,
    read_baseline,
    run_of,
    write_examples,
    write_report,
)
from lumoomni.codecs.facts import Coded
from lumoomni.errors import InputError
from lumoomni.gates import Report, exact, judge
from lumoomni.media.audio import Audio, load_audio
from lumoomni.media.image import load_image
from tests.audits.token_stand_ins import CellCodec, StepCodec, inputs, judged, space_of

VALUES = {"audio.snr_db": 6.0, "audio.log_mel_l1": 1.0, "image.psnr": 21.0, "image.ssim": 0.8}
ABOUT = Run(
    run="mine",
    abi="a" * 64,
    inputs={"image": "i" * 64, "audio": "j" * 64},
    scale={"image": 64, "audio": 16000},
)
OTHER = replace(ABOUT, run="other", abi="b" * 64)


def report(**changes: float) -> Report:
    """VALUES, some of them changed: `audio_snr_db=5.0`."""
    named = {name: changes.get(name.replace(".", "_"), value) for name, value in VALUES.items()}
    return Report(metrics={name: exact(value, n=4) for name, value in named.items()})


BASE = Baseline(about=OTHER, report=report())


def verdict_on(now: Report, base: Baseline = BASE, about: Run = ABOUT) -> tuple[bool, list[str]]:
    """(metrics_v2_pass, checks that failed); both are recorded and gated."""
    moved, wanted = compare(about, now, base)
    found = judge(Report(metrics={**now.metrics, **moved.metrics}), wanted)
    failed = [result.check.metric for result in found.results if not result.passed]
    assert found.passed == (moved.metrics[PASS].value == 1.0), failed
    return found.passed, failed


def test_the_limits_are_the_original_projects() -> None:
    assert verdict_on(report()) == (True, [])
    just = report(audio_snr_db=5.01, audio_log_mel_l1=1.049, image_psnr=20.51, image_ssim=0.7801)
    assert verdict_on(just)[0]
    for rule, changes in zip(
        RULES,
        (
            {"audio_snr_db": 4.99},
            {"audio_log_mel_l1": 1.051},
            {"image_psnr": 20.49},
            {"image_ssim": 0.7799},
        ),
        strict=True,
    ):
        assert verdict_on(report(**changes)) == (False, [rule.name, PASS])
    better = report(audio_snr_db=60.0, audio_log_mel_l1=0.1, image_psnr=99.0, image_ssim=1.0)
    assert verdict_on(better)[0]


def test_a_metric_that_is_gone_fails() -> None:
    gone = Report(metrics={n: m for n, m in report().metrics.items() if n != "image.ssim"})
    assert verdict_on(gone) == (False, ["metrics_v2.image.ssim.change", PASS])
    nan = report(image_ssim=float("nan"))
    assert verdict_on(nan) == (False, ["metrics_v2.image.ssim.change", PASS])


def test_log_mel_of_zero_is_no_division() -> None:
    zero = Baseline(about=OTHER, report=report(audio_log_mel_l1=0.0))
    assert verdict_on(report(audio_log_mel_l1=0.0), zero)[0]
    assert not verdict_on(report(audio_log_mel_l1=0.01), zero)[0]


@pytest.mark.parametrize(
    ("about", "match"),
    [
        (ABOUT, "is this run's own report"),
        (replace(OTHER, scale={"image": 64, "audio": 48000}), "audio at 48000 samples a second"),
        (replace(OTHER, scale={"image": 32, "audio": 16000}), "image at 32 pixels a side"),
        (replace(OTHER, inputs={**OTHER.inputs, "audio": "k" * 64}), "on other audio inputs"),
        (replace(OTHER, inputs={}, scale={}), "no metric is in both"),
    ],
)
def test_what_cannot_be_compared_is_refused(about: Run, match: str) -> None:
    with pytest.raises(InputError, match=match):
        compare(ABOUT, report(), Baseline(about=about, report=report()))


def test_a_kind_that_the_baseline_lacks_is_left_out() -> None:
    sound = replace(OTHER, inputs={"audio": "j" * 64}, scale={"audio": 16000})
    passed, _ = verdict_on(report(image_psnr=3.0), Baseline(about=sound, report=report()))
    assert passed
    assert (
        "baseline"
        in compare(ABOUT, report(), Baseline(about=replace(OTHER, abi=ABOUT.abi), report=report()))[
            0
        ].notes
    )


def audited(tmp_path: Path, run: str) -> Run:
    """An audit of the stand-ins, written to a folder."""
    uti, given = space_of(CellCodec(), StepCodec()), inputs(pictures=2, sounds=2)
    found, verdict = judged(uti, given)
    about = run_of(run, uti, given)
    write_report(tmp_path, about, found, found.report, [], verdict)
    assert write_examples(tmp_path, found) == [
        ("original.wav", "recon.wav"),
        ("original_1.wav", "recon_1.wav"),
    ]
    return about


def test_what_is_written_is_read_again_and_compared(tmp_path: Path) -> None:
    about = audited(tmp_path, "first")
    base = read_baseline(tmp_path / "report.json")
    assert base.about == about and base.report.metrics["image.psnr"].n == 2
    with pytest.raises(InputError, match="own report"):
        compare(about, base.report, base)
    moved, _ = compare(replace(about, run="second"), base.report, base)
    assert moved.metrics[PASS].value == 1.0 and moved.metrics[PASS].n == 4
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["verdict"]["passed"] and len(data["codes"]["audio"]) == 64
    assert load_audio(tmp_path / "recon.wav", 8000).rate == 8000
    shown = load_image(tmp_path / "recon.png")
    assert shown.shape == (2 * 132, 2 * 132, 3) and not np.array_equal(shown[:132], shown[132:])


def test_a_codec_that_got_worse_falls_behind_its_baseline(tmp_path: Path) -> None:
    """The same codes, decoded worse: only the comparison with the earlier run shows it."""
    about = audited(tmp_path, "first")
    base = read_baseline(tmp_path / "report.json")

    class Dim(CellCodec):
        def decode(self, coded: Coded) -> np.ndarray:
            return (super().decode(coded) * 0.5).astype(np.uint8)

    class Dull(StepCodec):
        def decode(self, coded: Coded) -> Audio:
            made = super().decode(coded)
            return Audio(made.samples * 0.5, made.rate)

    uti, given = space_of(Dim(), Dull()), inputs(pictures=2, sounds=2)
    found, verdict = judged(uti, given)
    assert verdict.passed and found.report.metrics["image.psnr"].value < 18
    mine = run_of("second", uti, given)
    assert mine == replace(about, run="second")
    passed, failed = verdict_on(found.report, base, mine)
    assert not passed and {"metrics_v2.image.psnr.change", PASS} <= set(failed)
    assert "metrics_v2.audio.log_mel_l1.ratio" in failed


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{}", "is no report of a token audit"),
        ("[1]", "is no report of a token audit"),
        ("{", "is a damaged report"),
        ('{"kind": "uti_audit", "schema": 2}', "has schema 2, this version reads 1"),
        ('{"kind": "uti_audit", "schema": 1}', "is a damaged report"),
        ('{"kind": "uti_audit", "schema": 1, "run": 1, "abi": 1, "inputs": []}', "damaged"),
    ],
)
def test_damaged_reports_are_refused(text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=match):
        read_baseline(tmp_path / "report.json")
    with pytest.raises(InputError, match="there is no"):
        read_baseline(tmp_path / "none.json")


def test_codes_have_a_digest_of_values_and_shapes() -> None:
    codes = np.arange(12)
    first = codes_digest([Coded(codes.reshape(6, 2))])
    assert first == codes_digest([Coded(codes.reshape(6, 2).astype(np.int32))])
    assert first != codes_digest([Coded(codes.reshape(4, 3))])
    assert first != codes_digest([Coded(codes.reshape(6, 2)[::-1])])
