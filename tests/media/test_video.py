"""Videos become a frame a second."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lumoomni.errors import InputError
from lumoomni.media.video import load_video


def write_video(path: Path, seconds: int, rate: int = 5) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(rate))
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for i in range(seconds * rate):
            shade = np.full((32, 32, 3), 40 * (i // rate), dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_one_frame_a_second_in_true_colours(tmp_path: Path) -> None:
    video = load_video(write_video(tmp_path / "a.mp4", 4))
    assert len(video.frames) == 4 and video.dropped == 0
    assert [round(t) for t in video.times] == [0, 1, 2, 3]
    for i, frame in enumerate(video.frames):
        assert frame.shape == (32, 32, 3)
        assert abs(int(frame.mean()) - 40 * i) < 8


def test_the_limit_counts_what_it_drops(tmp_path: Path) -> None:
    video = load_video(write_video(tmp_path / "a.mp4", 5), max_frames=2)
    assert len(video.frames) == 2 and video.dropped == 3


def test_a_gif_is_a_video(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), (i * 60, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=1000)
    assert len(load_video(tmp_path / "a.gif").frames) >= 2


def test_unusable_videos_say_why(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_bytes(b"no video here" * 50)
    with pytest.raises(InputError, match="cannot be read as a video"):
        load_video(tmp_path / "text.mp4")
    (tmp_path / "zero.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        load_video(tmp_path / "zero.mp4")
    with pytest.raises(InputError, match="no file"):
        load_video(tmp_path / "missing.mp4")
    with pytest.raises(InputError, match="directory"):
        load_video(tmp_path)
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(InputError, match="no picture track"):
        load_video(tmp_path / "sound.wav")


def test_a_title_in_another_encoding_is_no_fault(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 2)
    with av.open(str(tmp_path / "b.avi"), "w") as container:
        container.metadata["title"] = "XXXXXXXX"
        stream = container.add_stream("mpeg4", rate=Fraction(5))
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        grey = np.full((32, 32, 3), 90, np.uint8)
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24"))]:
            container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    data = (tmp_path / "b.avi").read_bytes()
    assert b"XXXXXXXX" in data
    path.write_bytes(data.replace(b"XXXXXXXX", b"caf\xe9 \xff\xfe!"))
    assert len(load_video(path).frames) == 1
