"""Artifacts are whole or absent, whatever happens while they are written."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from lumoomni import artifacts, runtime
from lumoomni.artifacts import MANIFEST, Artifact, ArtifactWriter, open_artifact
from lumoomni.errors import InputError
from lumoomni.gates import Check, Report, exact, judge


def write(place: Path, text: str) -> Artifact:
    report = Report(metrics={"m": exact(1.0)})
    checks = (Check(metric="m", op=">=", threshold=1.0, why=""),)
    with ArtifactWriter(place) as writer:
        (writer.folder / "a.txt").write_text(text)
        return writer.commit(
            kind="toy",
            config={"x": 1},
            parents={},
            seed=0,
            report=report,
            checks=checks,
            verdict=judge(report, checks),
        )


def test_identity_is_what_it_holds_and_not_when(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", "same"), write(tmp_path / "two", "same")
    assert one.hash == two.hash
    assert write(tmp_path / "three", "other").hash != one.hash
    assert open_artifact(tmp_path / "one").hash == one.hash


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_keeps_the_previous_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    before = write(tmp_path / "a", "first")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, where, full)
    with pytest.raises(InputError, match=r"disk that holds .* is full"):
        write(tmp_path / "a", "second")
    monkeypatch.undo()
    assert open_artifact(tmp_path / "a").hash == before.hash
    assert (tmp_path / "a" / "a.txt").read_text() == "first"
    write(tmp_path / "a", "third")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_artifact_set_aside_by_a_dead_writer_comes_back(tmp_path: Path) -> None:
    before = write(tmp_path / "a", "first")
    (tmp_path / "a").rename(tmp_path / ".a.old-999999999")
    with ArtifactWriter(tmp_path / "a"):
        assert open_artifact(tmp_path / "a").hash == before.hash


def test_newer_and_damaged_manifests_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", "x")
    path = tmp_path / "a" / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "schema": artifacts.SCHEMA + 1}))
    with pytest.raises(InputError, match=r"schema 2, this version reads up to 1"):
        open_artifact(tmp_path / "a")
    path.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        open_artifact(tmp_path / "a")
    path.write_text(json.dumps({"schema": 1}))
    with pytest.raises(InputError, match="damaged"):
        open_artifact(tmp_path / "a")
    with pytest.raises(InputError, match="not an artifact"):
        open_artifact(tmp_path)


def test_files_must_be_listed_and_there(tmp_path: Path) -> None:
    artifact = write(tmp_path / "a", "x")
    assert artifact.file("a.txt").read_text() == "x"
    with pytest.raises(InputError, match=r"holds no b.txt; it holds a.txt"):
        artifact.file("b.txt")
    (tmp_path / "a" / "a.txt").unlink()
    with pytest.raises(InputError, match="is missing"):
        artifact.file("a.txt")


def test_atomic_writes_keep_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.atomic_write_text(tmp_path / "f", "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="is full"):
        runtime.atomic_write_text(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_full_disk_is_known_by_what_safetensors_says(tmp_path: Path) -> None:
    words = "Error while serializing: I/O error: No space left on device (os error 28)"
    error = SafetensorError(words)
    assert runtime.is_full(error) and not runtime.is_full(ValueError("28"))
    with pytest.raises(InputError, match="is full"), runtime.whole_folder(tmp_path / "a", "it"):
        raise error
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="is full"), ArtifactWriter(tmp_path / "b"):
        raise error
    assert list(tmp_path.iterdir()) == []
