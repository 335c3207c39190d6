"""`lumo data check`: what it prints, its exit codes, and that importing it is cheap."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from lumoomni.cli_data import register

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


def test_importing_the_verb_leaves_torch_alone() -> None:
    program = "import sys, lumoomni.cli_data; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0
