"""The verbs over shards: gates with their exit codes, counts, and a sample in words and files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lumoomni.audits.dataset_stats import entropy_bits
from lumoomni.cli import app
from lumoomni.media.audio import load_audio
from lumoomni.media.image import load_image
from lumoomni.uti.interface import UTI
from tests.shard_folder import Row, spoil
from tests.toy_codecs import toy_set, toy_uti

RUN = CliRunner()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return toy_set(tmp_path_factory.mktemp("verbs"), toy_uti())


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy codecs live in no folder."""
    monkeypatch.setattr(UTI, "load", classmethod(lambda cls, folder: toy_uti()))


def verify(folder: Path, *more: str) -> tuple[int, str]:
    done = RUN.invoke(app, ["data", "verify", str(folder), "--context", "128", *more])
    return done.exit_code, done.output


def test_verify_passes_and_says_what_it_did_not_look_at(made: tuple[Path, Path]) -> None:
    folder, manifest = made
    code, said = verify(folder)
    assert code == 0, said
    assert "not held without --space and --manifest: dataset.manifest" in said
    whole = ("--space", "x", "--manifest", str(manifest), "--json", "--sample", "40")
    whole += ("--min-psnr", "22")  # the toy codec's own
    code, said = verify(folder, *whole)
    found = json.loads(said.splitlines()[0])
    wrong = [one for one in found["verdict"]["results"] if not one["passed"]]
    # So few media hold too few codes to prove anything, and that is all that is wrong.
    assert code == 1 and found["not_held"] == []
    names = {one["check"]["metric"] for one in wrong}
    assert names == {"dataset.retokenize_image", "dataset.retokenize_audio"}
    assert all("needed at least 1000" in one["reason"] for one in wrong)
    strict = ("--min-psnr", "26", "--min-ssim", "0.99", "--max-log-mel", "0.1")
    code, said = verify(folder, *whole, *strict)
    found = json.loads(said.splitlines()[0])["verdict"]["results"]
    missed = {one["check"]["metric"] for one in found if not one["passed"]} - names
    assert missed == {"dataset.psnr", "dataset.ssim", "dataset.log_mel"}


def test_verify_fails_for_a_fault_and_refuses_nonsense(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    def shift(rows: list[Row]) -> None:
        rows[3]["image"] = rows[3]["image"] + 4000
        rows[-1]["audio"] = rows[-1]["audio"] + 4000

    code, said = verify(spoil(made[0], tmp_path / "spoilt", shift))
    assert code == 1 and "FAILED dataset.in_range" in said
    shutil.copytree(made[0], tmp_path / "flipped")
    path = next((tmp_path / "flipped" / "train").iterdir())
    data = path.read_bytes()
    path.write_bytes(data[:-900] + bytes([data[-900] ^ 1]) + data[-899:])
    code, said = verify(tmp_path / "flipped")
    assert code == 1 and "FAILED dataset.files_whole" in said
    code, said = verify(tmp_path)
    assert code == 2 and "has no shards.json" in said
    code, said = verify(made[0], "--space", "x")
    assert code == 2 and "--manifest is missing" in said


def test_stats_count_what_is_there(made: tuple[Path, Path]) -> None:
    done = RUN.invoke(app, ["data", "stats", str(made[0]), "--context", "40", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["rows"]["train i2t toy"] == 20 and found["rows"]["eval t2a toy"] == 4
    assert sum(found["rows"].values()) == 96
    assert found["tokens"]["image"] == 48 * 16 and found["tokens"]["prompt"] == 0
    book = found["books"]["IMAGE"]
    assert book["codes"] == 48 * 16 and 0 < book["entropy"] < book["most"]
    assert 0 < book["dead"] < book["size"] == 216
    assert set(found["books"]) == {"IMAGE", "AUDIO_CB0", "AUDIO_CB1"}
    assert found["lengths"]["p100"] > 40 and found["cut"] + found["too_long"] > 0
    plain = RUN.invoke(app, ["data", "stats", str(made[0])])
    assert "train i2t toy: 20 rows" in plain.output and "codes never used" in plain.output


def test_entropy_is_in_bits() -> None:
    assert entropy_bits(np.array([4, 4, 4, 4, 0])) == pytest.approx(2.0)
    assert entropy_bits(np.array([9, 0])) == 0 == entropy_bits(np.zeros(3))
    assert entropy_bits(np.array([3, 1])) == pytest.approx(0.8113, abs=1e-4)


def test_peek_shows_words_and_writes_files(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder, out = str(made[0]), tmp_path / "out"
    for number, task in ((0, "i2t"), (3, "t2a")):
        line = ["data", "peek", folder, str(number), "--space", "x", "--out", str(out)]
        done = RUN.invoke(app, line)
        assert done.exit_code == 0, done.output
        assert f"task {task}" in done.output and "text: a " in done.output
        first = "<|text_start|>" if task == "i2t" else "<|aud_start|>"
        learned = [line.split()[1] for line in done.output.splitlines() if "learned" in line]
        assert learned[0] == first
    assert (out / "text.txt").read_text().startswith("a ")
    assert load_image(out / "image.png").shape == (16, 16, 3)
    assert load_audio(out / "audio.wav").seconds > 0.2
    held = RUN.invoke(app, ["data", "peek", folder, "0", "--split", "eval", "--json"])
    found = json.loads(held.output)
    assert found["id"] == "i2t:20" and found["runs"][0]["range"] == "<|img_start|>"
    assert [i for run in found["runs"] for i in run["ids"]] == found["ids"]
    assert found["runs"][1]["range"] == "IMAGE" and not found["runs"][1]["learned"]


def test_peek_refuses_what_is_not_there(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(made[0])
    for line, said in (
        (["80"], "there is no row 80 in train, which has 80"),
        (["0", "--split", "test"], "has no split 'test'"),
        (["0", "--out", "x"], "give --space too"),
    ):
        done = RUN.invoke(app, ["data", "peek", folder, *line])
        assert done.exit_code == 2 and said in done.output, done.output
    from tests.toy_codecs import Blocks

    other = toy_uti(image=Blocks(weights="c" * 64))
    monkeypatch.setattr(UTI, "load", classmethod(lambda cls, where: other))
    done = RUN.invoke(app, ["data", "peek", folder, "0", "--space", "x"])
    assert done.exit_code == 2 and "was made in token space" in done.output
