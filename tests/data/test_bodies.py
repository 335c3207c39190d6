"""Damaged bodies behind good headers: found before training, named, counted, looked at once."""

import io
import json
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumoomni.data import bodies, tables
from lumoomni.data.bodies import damaged
from lumoomni.data.cut_off import cut_off
from lumoomni.data.headers import header_problem
from lumoomni.data.sources import open_pictures, open_speech
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio, save_wav


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lumoomni" / "bodies"


def photo(seed: int) -> bytes:
    stream, out = np.random.default_rng(seed), io.BytesIO()
    pixels = stream.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def captions(folder: Path, count: int, cut: tuple[int, ...]) -> Path:
    """A listing of PNGs of which some stop in the middle."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        data = photo(i)
        (folder / f"{i}.png").write_bytes(data[: len(data) // 2] if i in cut else data)
    listing = folder / "all.json"
    listing.write_text(
        json.dumps([{"image": f"{i}.png", "caption": f"number {i}"} for i in range(count)])
    )
    return listing


def test_a_picture_cut_off_is_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = captions(tmp_path / "p", 40, (7,))
    assert header_problem(tmp_path / "p" / "7.png", "picture") == ""
    found = open_pictures(f"json:{listing}", 0, 16)
    assert (found.size("train") or 0) + (found.size("seen") or 0) == 39
    (said,) = found.problems  # type: ignore[attr-defined]
    assert "7.png" in said and "all.json[7]" in said
    assert "left out 1 of 40 rows" in capsys.readouterr().err
    for split in ("train", "seen"):
        for index in range(found.size(split) or 0):
            found.item(split, index)


def test_too_many_are_refused_and_trust_is_a_choice(tmp_path: Path) -> None:
    listing = captions(tmp_path / "p", 20, (3, 4))
    with pytest.raises(InputError, match=r"2 of 20 rows cannot be used, for example .*3.png"):
        open_pictures(f"json:{listing}", 0, 16)
    trusted = open_pictures(f"json:{listing}?bodies=trust", 0, 16)
    assert (trusted.size("train") or 0) + (trusted.size("seen") or 0) == 20
    with pytest.raises(InputError, match="bodies is look or trust"):
        open_pictures(f"json:{listing}?bodies=maybe", 0, 16)


def test_sounds_and_pictures_inside_of_tars_are_read_too(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    lines = ["wav,text"]
    for i in range(30):
        sound = Audio(stream.normal(0, 0.1, 4000).astype(np.float32), 16000)
        save_wav(tmp_path / f"{i}.wav", sound)
        lines.append(f"{i}.wav,word number {i}")
    flac = tmp_path / "4.wav"
    import soundfile

    soundfile.write(tmp_path / "4.flac", stream.normal(0, 0.1, 90000), 16000)
    data = (tmp_path / "4.flac").read_bytes()
    flac.write_bytes(data[: len(data) // 2])  # a FLAC by its bytes, whose header is whole
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    assert header_problem(flac, "sound") == ""
    found = open_speech(f"csv:{tmp_path / 'all.csv'}", 0)
    assert (found.size("train") or 0) + (found.size("seen") or 0) == 29
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(24):
            whole = photo(i)
            png = whole[:1500] if i == 5 else whole
            for name, body in ((f"{i:03}.png", png), (f"{i:03}.txt", f"number {i}".encode())):
                info = tarfile.TarInfo(name)
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    tarred = open_pictures(f"webdataset:{tmp_path / 'a.tar'}", 0, 16)
    (said,) = tarred.problems  # type: ignore[attr-defined]
    assert "005.png" in said


def test_what_did_not_change_is_looked_at_once(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = captions(tmp_path / "p", 6, (2,))
    files = sorted(listing.parent.glob("*.png"))
    looked: list[Path] = []
    real = bodies.load_picture

    def look(media: Path) -> object:
        looked.append(media)
        return real(media)

    monkeypatch.setattr(bodies, "load_picture", look)
    first = damaged(files, "picture")
    assert list(first) == [str(files[2])] and len(looked) == 6
    assert damaged(reversed(files), "picture") == first and looked[6:] == [files[2]]
    files[2].write_bytes(photo(2))  # repaired
    assert damaged(files, "picture") == {} and len(looked) == 13
    assert damaged(files, "picture") == {} and len(looked) == 13
    for note in notes.iterdir():
        note.write_text("{ torn")
    assert damaged(files, "picture") == {} and len(looked) == 19


def test_a_home_that_cannot_be_written_to_costs_a_look_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    listing = captions(tmp_path / "p", 3, (1,))
    for _ in range(2):
        assert len(damaged(listing.parent.glob("*.png"), "picture")) == 1


def cut_in_half(path: Path, share: float = 0.5) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("form", ["wav", "ogg", "mp3", "flac"])
def test_sounds_that_end_before_they_promise_are_found(tmp_path: Path, form: str) -> None:
    import soundfile

    stream = np.random.default_rng(0)
    files = []
    for seconds in (0.3, 1.0, 6.0):
        files.append(tmp_path / f"{seconds}.{form}")
        soundfile.write(files[-1], stream.normal(0, 0.1, int(16000 * seconds)), 16000)
    assert damaged(files, "sound") == {}
    for share in (0.9, 0.5):
        cut_in_half(files[2], share)
        (found,) = damaged(files, "sound").items()
        assert found[0] == str(files[2]) and ("cut off" in found[1] or form == "flac")


def test_a_wav_that_was_streamed_promises_nothing(tmp_path: Path) -> None:
    save_wav(tmp_path / "a.wav", Audio(np.ones(4000, dtype=np.float32) / 9, 16000))
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data") + 4
    for length in (b"\xff\xff\xff\xff", b"\0\0\0\0"):
        data[place : place + 4] = length
        (tmp_path / "a.wav").write_bytes(data)
        assert cut_off(tmp_path / "a.wav", 0.25) == ""
    assert cut_off(cut_in_half(tmp_path / "a.wav", 0.001), 0.0) == ""  # no sound by its bytes


def test_a_failure_that_passed_is_forgotten(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = captions(tmp_path / "p", 6, (2,))
    files = sorted(listing.parent.glob("*.png"))
    real, broken = bodies.load_picture, {files[4]}

    def look(media: Path) -> object:
        if media in broken:
            raise OSError(24, "Too many open files")
        return real(media)

    monkeypatch.setattr(bodies, "load_picture", look)
    first = damaged(files, "picture")
    assert list(first) == [str(files[2]), str(files[4])] and "Too many" in first[str(files[4])]
    broken.clear()
    for _ in range(2):
        assert list(damaged(files, "picture")) == [str(files[2])]
    (note,) = notes.iterdir()
    assert list(json.loads(note.read_text())) == [str(files[2])]


def test_threads_unpack_a_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    path = tmp_path / "a.parquet"
    rows = pyarrow.table({"picture": [photo(i) for i in range(64)]})
    parquet.write_table(rows, path, row_group_size=32)
    unpacked: list[int] = []
    real = parquet.ParquetFile.read_row_group

    def read(self: object, group: int, **more: object) -> object:
        unpacked.append(group)
        time.sleep(0.02)
        return real(self, group, **more)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", read)
    table = tables.open_table(path)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda row: table.column(row // 32, "picture")[row % 32], range(64)))
    assert sorted(unpacked) == [0, 1]
