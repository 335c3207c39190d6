"""`lumo data check`: what it prints, its exit codes, and that importing it is cheap."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from lumoomni.cli_data import register
from lumoomni.data.readers import LAYOUTS

app = typer.Typer()
register(app)


@pytest.fixture()
def captions(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    items = []
    for i in range(30):
        Image.new("RGB", (12, 10)).save(tmp_path / "root" / f"{i}.png")
        items.append({"image": f"{i}.png", "caption": f"caption {i}"})
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(items))
    return path


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["data", "check", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_usable_data_is_shown(captions: Path) -> None:
    code, out, _ = run("json", captions, "--image-root", captions.parent / "root")
    assert code == 0 and "samples: 30" in out and "usable: True" in out
    assert "pixels: smallest 10 x 12, median 10 x 12, largest 10 x 12" in out
    assert "seconds: none" in out
    code, out, _ = run("json", captions, "--image-root", captions.parent / "root", "--json")
    assert code == 0 and json.loads(out)["samples"] == 30


def test_too_many_problems_exit_with_one_and_names(captions: Path) -> None:
    for i in (3, 4):
        (captions.parent / "root" / f"{i}.png").unlink()
    code, out, _ = run("json", captions, "--image-root", captions.parent / "root")
    assert code == 1 and "3.png" in out and "usable: False" in out
    code, out, _ = run("json", captions, "--image-root", captions.parent / "root", "--json")
    assert code == 1 and json.loads(out)["unreadable"] == 2


def test_bad_input_exits_with_two(captions: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("jsn", captions), "did you mean json"),
        (("json", tmp_path / "none.json"), "there is no"),
        (("json", captions, "--image-root", tmp_path / "nowhere"), "there is no folder"),
        (("json", captions, "--tokenizer", tmp_path / "none"), "no tokenizer at"),
        (("json", captions, "--max-tokens", "0"), "max_tokens is 0"),
    ):
        code, out, err = run(*arguments)
        assert code == 2 and out == "" and words in err.replace("\n", " "), (arguments, err)


def test_pictures_inside_other_files(captions: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for i in range(30):
        (shards / f"{i}.txt").write_text(f"caption {i}")
    with tarfile.open(shards / "a-000.tar", "w") as tar:
        for i in range(30):
            tar.add(captions.parent / "root" / f"{i}.png", f"{i}.png")
            tar.add(shards / f"{i}.txt", f"{i}.txt")
    for place in (shards, shards / "a-000.tar", shards / "a-{000..000}.tar"):
        code, out, _ = run("webdataset", place)
        assert code == 0 and "samples: 30" in out and "median 10 x 12" in out
    code, _, err = run("webdataset", shards / "a-{000..001}.tar")
    assert code == 2 and "1 of 2 shards" in err.replace("\n", " ")
    shown = [{"bytes": (captions.parent / "root" / f"{i}.png").read_bytes()} for i in range(3)]
    table = pa.table({"image": shown, "caption": ["a", "b", ""]})
    (tmp_path / "hf").mkdir()
    pq.write_table(table, tmp_path / "hf" / "train-00000-of-00001.parquet")
    code, out, _ = run("hf", tmp_path / "hf")
    assert code == 1 and "samples: 3" in out and "empty_texts: 1" in out


def test_every_format_is_listed() -> None:
    result = CliRunner().invoke(app, ["data", "check", "--help"], terminal_width=300)
    assert all(layout in result.stdout for layout in LAYOUTS), result.stdout


def test_importing_the_verb_leaves_torch_alone() -> None:
    program = "import sys, lumoomni.cli_data; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0
