"""A look at a header: good files of every kind pass, and bad ones say why."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from lumoomni.data.headers import Kind, header_problem
from lumoomni.data.picture_shards import Member


def aac(path: Path, *, sound: bool) -> None:
    """A container that only PyAV reads, with a track of sound or of pictures."""
    with av.open(path, "w", format="mp4") as container:
        if sound:
            stream = container.add_stream("aac", rate=16000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate = 16000
        else:
            stream = container.add_stream("mpeg4", rate=5)
            stream.width = stream.height = 16  # type: ignore[attr-defined]
            stream.pix_fmt = "yuv420p"  # type: ignore[attr-defined]
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
        for packet in (*stream.encode(frame), *stream.encode(None)):  # type: ignore[attr-defined]
            container.mux(packet)


def test_good_files_have_no_problem(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "a.ogg"):
        soundfile.write(tmp_path / name, np.zeros(800), 16000)
        assert header_problem(tmp_path / name, "sound") == ""
    aac(tmp_path / "a.m4a", sound=True)
    assert header_problem(tmp_path / "a.m4a", "sound") == ""
    for name in ("a.png", "a.jpg", "a.webp"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
        assert header_problem(tmp_path / name, "picture") == ""


@pytest.mark.parametrize("kind", ["sound", "picture"])
def test_bad_files_say_why(tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("neither heard nor seen")
    assert header_problem(tmp_path / "none", kind) == header_problem(tmp_path, kind)
    assert header_problem(tmp_path, kind) == "there is no such file"
    assert header_problem(tmp_path / "empty", kind) == "the file is empty (0 bytes)"
    assert f"no {kind} header" in header_problem(tmp_path / "text", kind)


def test_pictures_inside_other_files(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.tar").write_bytes(b"before" + data + b"after")
    for start, size, words in (
        (6, len(data), ""),
        (6, 0, "the picture is empty (0 bytes)"),
        (0, len(data), "has no picture header that can be read (UnidentifiedImageError)"),
    ):
        member = Member(tmp_path / "a.tar", "a.png", start, size)
        assert header_problem(member, "picture") == words
    missing = Member(tmp_path / "none.tar", "a.png", 0, 9)
    assert "cannot be opened" in header_problem(missing, "picture")


def test_sound_files_without_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16000)
    assert "no samples" in header_problem(tmp_path / "a.wav", "sound")
    aac(tmp_path / "a.mp4", sound=False)
    assert header_problem(tmp_path / "a.mp4", "sound") == "holds no audio track"
