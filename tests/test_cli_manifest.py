"""`lumo data manifest`: what it prints, what it writes, its exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from lumoomni.cli_data import register
from lumoomni.cli_manifest import LAYOUT
from lumoomni.data.manifest import read_manifest
from lumoomni.data.manifest_builders import LAYOUTS, WORLD
from lumoomni.media.image import save_png

app = typer.Typer()
register(app)


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["data", "manifest", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr.replace("\n", " ")


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    for i in range(10):
        (tmp_path / "f").mkdir(exist_ok=True)
        save_png(tmp_path / "f" / f"{i}.png", np.full((4, 4, 3), i, np.uint8))
        (tmp_path / "f" / f"{i}.txt").write_text(f"picture {i}")
    return tmp_path / "f"


def test_a_manifest_is_written_and_described(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.jsonl"
    code, said, _ = run("folder", folder, out, "--both-ways", "--eval-share", "0.5")
    assert code == 0 and "records: 20" in said and "tasks: i2t 10, t2i 10" in said
    assert "defects: 0" in said and "defects_named: none" in said
    records = list(read_manifest(out))
    assert len(records) == 20 and {r.split for r in records} == {"train", "eval"}
    code, said, _ = run("folder", folder, out, "--limit", "3", "--licence", "mine", "--json")
    assert code == 0 and json.loads(said)["records"] == 3
    assert [r.licence for r in read_manifest(out)] == ["mine"] * 3


def test_too_many_defects_exit_with_one(folder: Path, tmp_path: Path) -> None:
    (folder / "4.txt").unlink()
    out = tmp_path / "m.jsonl"
    code, said, _ = run("folder", folder, out, "--json")
    found = json.loads(said)
    assert code == 1 and not out.exists() and not found["usable"]
    assert (
        found["reasons"] == {"no text file beside it": 1} and "4.png" in found["defects_named"][0]
    )
    code, said, _ = run("folder", folder, out, "--most-defects", "0.1")
    assert code == 0 and "defects: 1" in said and "4.png: no text file beside it" in said
    assert out.exists()


def test_bad_input_exits_with_two(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.jsonl"
    for arguments, words in (
        (("foldr", folder, out), "did you mean folder"),
        (("folder", tmp_path / "none", out), "there is no"),
        (("folder", folder, out, "--audio-root", tmp_path), "no use for --audio-root"),
        (("clotho", folder, out, "--image-root", tmp_path), "no use for --image-root"),
        (("folder", folder, out, "--eval-share", "2"), "eval_share is 2.0"),
        (("world", folder, out, "--pixels", "1"), "pixels is 1"),
    ):
        code, said, error = run(*arguments)
        assert code == 2 and said == "" and words in error, (arguments, error)
    assert not out.exists()


def test_the_world_by_command(tmp_path: Path) -> None:
    out = tmp_path / "w.jsonl"
    code, said, _ = run(
        "world",
        tmp_path / "w",
        out,
        "--limit",
        2,
        "--held",
        1,
        "--pixels",
        16,
        "--seed",
        5,
        "--json",
    )
    found = json.loads(said)
    assert code == 0 and found["records"] == 11 and found["officials"]["train"] == 6
    assert found["officials"] == {"seen": 3, "train": 6, "unseen": 2}


def test_every_layout_is_listed() -> None:
    assert all(layout in LAYOUT for layout in (*LAYOUTS, WORLD))
