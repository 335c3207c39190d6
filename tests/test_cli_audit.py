"""`lumo tokens audit`: what it writes, what it ends with, and what it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lumoomni.artifacts import ArtifactWriter
from lumoomni.audits.token_process import encode_elsewhere
from lumoomni.cli import app
from lumoomni.codecs.speech_tokens import SpeechTokens
from lumoomni.gates import Report, checks_from_dict, judge
from lumoomni.infer.tokens import audit, checks, save_codecs, write_space
from lumoomni.media.audio import Audio, save_wav
from lumoomni.uti.folder import KIND, TOKENIZER
from lumoomni.uti.interface import UTI
from tests.audits.token_stand_ins import TEXT, fitted_codec, inputs
from tests.tiny import MEL

pytestmark = pytest.mark.slow
RUN = CliRunner()


def write(folder: Path) -> Path:
    """A token space of text and of a speech codec that carries what is said."""
    with ArtifactWriter(folder) as writer:
        entries = save_codecs(writer.folder, None, fitted_codec(), MEL)
        TEXT.save(writer.folder / TOKENIZER)
        uti = write_space(writer.folder, TEXT, TEXT.vocab_size, entries, {})
        report, wanted = Report(metrics=audit(uti)), checks(uti.space)
        writer.commit(
            kind=KIND,
            config=entries,
            parents={},
            seed=0,
            report=report,
            checks=wanted,
            verdict=judge(report, wanted),
        )
    return folder


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("space") / "space")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sounds")
    options = []
    for place, sound in enumerate(inputs(sounds=2).sounds):
        save_wav(folder / f"{place}.wav", sound)
        options += ["--audio", str(folder / f"{place}.wav")]
    return options


@pytest.fixture(scope="module")
def first(space: Path, sounds: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The audit of a space that holds what is asked."""
    out = tmp_path_factory.mktemp("audit") / "first"
    made = RUN.invoke(app, ["tokens", "audit", str(space), *sounds, "--out", str(out)])
    assert made.exit_code == 0, made.output
    assert "checks hold" in made.output and "FAILED" not in made.output
    return out


def test_it_writes_what_a_person_and_a_program_need(space: Path, first: Path) -> None:
    names = {path.name for path in first.iterdir()}
    assert names == {
        *("token_space.json", "token_space.sha256", "report.json", "index.html"),
        *("original.wav", "recon.wav", "original_1.wav", "recon_1.wav"),
    }
    assert (first / "token_space.json").read_bytes() == (space / "token_space.json").read_bytes()
    data = json.loads((first / "report.json").read_text())
    assert data["verdict"]["passed"] and data["scale"] == {"audio": 16000}
    assert judge_again(data).passed
    assert "audio.margin.cb1.p1" in data["report"]["metrics"]
    page = (first / "index.html").read_text()
    assert page.count("<audio controls") == 4 and page.count("data:image/png") == 4
    assert "0.wav" in page and "http" not in page.replace("http://www.w3.org", "")
    assert (first / "token_space.sha256").read_text().strip() == UTI.load(space).space.abi


def judge_again(data: dict[str, Any]) -> Any:
    return judge(Report.from_dict(data["report"]), checks_from_dict(data["checks"]))


def test_a_baseline_is_kept_and_held_against(
    space: Path, sounds: list[str], first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding that loses loudness keeps every code: only the earlier run shows it."""
    plain = SpeechTokens.decode

    def quiet(self: SpeechTokens, coded: Any) -> Audio:
        made = plain(self, coded)
        return Audio(made.samples * 0.3, made.rate)

    words = ["tokens", "audit", str(space), *sounds, "--baseline", str(first / "report.json")]
    same = RUN.invoke(app, [*words, "--json"])
    assert same.exit_code == 0, same.output
    assert json.loads(same.stdout)["metrics"]["metrics_v2_pass"]["value"] == 1.0
    monkeypatch.setattr(SpeechTokens, "decode", quiet)
    out = tmp_path / "second"
    worse = RUN.invoke(app, [*words, "--out", str(out)])
    assert worse.exit_code == 1 and "metrics_v2.audio.log_mel_l1.ratio is" in worse.stderr
    assert "metrics_v2_pass is 0" in worse.stderr
    assert (out / "baseline_report.json").read_bytes() == (first / "report.json").read_bytes()
    assert "FAILED" in (out / "index.html").read_text()
    assert not json.loads((out / "report.json").read_text())["verdict"]["passed"]


def test_a_space_that_failed_is_opened_to_be_asked_why_and_for_nothing_else(
    space: Path, sounds: list[str], tmp_path: Path
) -> None:
    failed = tmp_path / "failed"
    shutil.copytree(space, failed)
    data = json.loads((failed / "manifest.json").read_text())
    data["verdict"]["passed"] = False
    (failed / "manifest.json").write_text(json.dumps(data))
    made = RUN.invoke(app, ["tokens", "audit", str(failed), *sounds])
    assert made.exit_code == 0 and "checks hold" in made.output, made.output
    for words in (["tokens", "show", str(failed)], ["tokens", "encode", str(failed), "a"]):
        refused = RUN.invoke(app, words)
        assert refused.exit_code == 2 and "did not pass its audit" in refused.stderr
    # What was changed since is not what failed.
    (failed / "speech_codec.json").write_text("{}")
    changed = RUN.invoke(app, ["tokens", "audit", str(failed), *sounds])
    assert changed.exit_code == 2 and "was changed" in changed.stderr


def test_bad_input_ends_with_two(
    space: Path, sounds: list[str], first: Path, tmp_path: Path
) -> None:
    words = ["tokens", "audit", str(space)]
    for more, match in (
        (["--image", str(tmp_path / "a.png")], "has no image codec"),
        (["--audio", str(tmp_path / "a.wav")], "there is no file"),
        (["--baseline", str(tmp_path / "r.json")], "there is no"),
        (["--out", str(space)], "cannot hold the results"),
        ([*sounds[:2], "--baseline", str(first / "report.json")], "on other audio inputs"),
    ):
        made = RUN.invoke(app, [*words, *more])
        assert made.exit_code == 2 and match in made.stderr, (more, made.output)
    assert RUN.invoke(app, ["tokens", "audit", str(tmp_path)]).exit_code == 2


def test_weights_that_changed_on_disk_are_refused_and_seen_elsewhere(tmp_path: Path) -> None:
    folder = write(tmp_path / "space")
    uti = UTI.load(folder)
    path = folder / "speech_codec.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-2] ^= 1
    path.write_bytes(bytes(whole))
    made = RUN.invoke(app, ["tokens", "audit", str(folder)])
    assert made.exit_code == 2 and "speech_codec.safetensors" in made.stderr
    there = encode_elsewhere(folder, {"audio": [np.zeros(4000, np.float32)]}, ["a", ""])
    assert there.facts["audio"]["weights"] != uti.space.codec("audio").weights
    assert there.coded["audio"][0].codes.shape == (7, 2)
    assert there.texts == [TEXT.encode("a"), []]
    (folder / "codecs.json").unlink()
    assert "codecs.json" in encode_elsewhere(folder, {}, []).problem
