"""Hashes of media: the bytes' own, defects named, nothing read twice, a bar where it is slow."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from lumoomni.data import asset_hash, watched
from lumoomni.data.asset_hash import AssetHashes, Seen
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio, save_wav
from lumoomni.media.image import save_png


@pytest.fixture()
def media(tmp_path: Path) -> Path:
    save_png(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    save_wav(tmp_path / "a.wav", Audio(np.zeros(160, np.float32), 16000))
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def test_files_are_hashed_and_defects_named(media: Path) -> None:
    names = {"a.png": "picture", "empty.wav": "sound", "text.png": "picture", "b.wav": "sound"}
    found = AssetHashes(2).look((media / name, kind) for name, kind in names.items())  # type: ignore[misc]
    data = (media / "a.png").read_bytes()
    assert found[media / "a.png"] == Seen(hashlib.sha256(data).hexdigest())
    assert "empty (0 bytes)" in found[media / "empty.wav"].problem
    assert "no picture header" in found[media / "text.png"].problem
    assert found[media / "b.wav"] == Seen(problem="there is no such file")


def test_more_files_than_a_batch_keep_their_hashes(media: Path, monkeypatch) -> None:
    monkeypatch.setattr(asset_hash, "BATCH", 3)
    paths = [media / f"{i}.wav" for i in range(10)]
    for i, path in enumerate(paths):
        save_wav(path, Audio(np.full(160, i / 100, np.float32), 16000))
    found = AssetHashes(4).look([(path, "sound") for path in reversed(paths)])
    assert len(found) == 10
    for path in paths:
        assert found[path].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_read_again_only_when_it_changed(media: Path, monkeypatch) -> None:
    read: list[Path] = []
    real = asset_hash._read

    def counted(path: Path, kind) -> Seen:
        read.append(path)
        return real(path, kind)

    monkeypatch.setattr(asset_hash, "_read", counted)
    hashes, path = AssetHashes(), media / "a.wav"
    first = hashes.look([(path, "sound"), (path, "sound")])
    assert hashes.look([(path, "sound")]) == first and read == [path]
    save_wav(path, Audio(np.full(160, 0.5, np.float32), 16000))
    os.utime(path, ns=(0, 0))
    second = hashes.look([(path, "sound")])
    assert len(read) == 2 and second[path].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert second != first
    AssetHashes().look([(path, "sound")])
    assert len(read) == 3


def test_slow_hashing_shows_a_bar(media: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(watched, "PATIENCE", -1.0)
    said: list[str] = []

    class Spy(watched.Progress):
        def task(self, name, **settings):
            said.append(f"{name} {settings['total']}")
            return super().task(name, **settings)

    monkeypatch.setattr(watched, "Progress", Spy)
    AssetHashes().look([(media / "a.wav", "sound"), (media / "a.png", "picture")])
    assert said == ["looking at files 2"]


def test_no_threads_are_refused() -> None:
    with pytest.raises(InputError, match="threads is 0"):
        AssetHashes(0)
