"""Plain files, which are read by a shorter way: the same bits as by the long one."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from lumoomni.errors import InputError
from lumoomni.media import audio
from lumoomni.media.audio import load_audio
from lumoomni.media.image import encode_png, load_image

EVERY = np.arange(-(2**15), 2**15, dtype=np.int16)


def wav(samples: np.ndarray, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="WAV", subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 2])
def test_every_sample_is_what_soundfile_says(channels: int) -> None:
    data = wav(EVERY.reshape(-1, channels))
    found = audio._plain_wav(data)
    assert found is not None
    wanted, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert np.array_equal(found[0], wanted) and found[0].dtype == wanted.dtype
    assert found[1] == rate == 16000
    assert np.array_equal(
        load_audio(data).samples, wanted.mean(1) if channels == 2 else wanted[:, 0]
    )


def test_all_else_goes_the_long_way() -> None:
    data = wav(EVERY)
    more = data[:36] + b"LIST" + struct.pack("<I", 4) + b"INFO" + data[36:]
    others = [wav(EVERY, subtype="PCM_24"), wav(EVERY, subtype="FLOAT"), more, wav(EVERY[:0])]
    others += [data[:-1], data[:-2], data + b"x", data[:44], data[:20], b"", b"RIFF"]
    others += [data[:24] + bytes(8) + data[32:]]  # no rate
    others += [data[:22] + struct.pack("<H", 0) + data[24:]]  # no channels
    for one in others:
        assert audio._plain_wav(one) is None
    assert np.array_equal(load_audio(others[0]).samples, EVERY.astype(np.float32) / 2**15)


def test_a_long_plain_file_is_refused_as_any_other() -> None:
    with pytest.raises(InputError, match="can be read at once"):
        load_audio(wav(EVERY), max_seconds=1.0)


def test_given_samples_are_copied_and_nothing_else_is() -> None:
    given = np.zeros(1600, dtype=np.float32)
    heard = load_audio((given, 16000))
    given[:] = 1
    assert not heard.samples.any()
    assert load_audio(heard).samples is heard.samples


@pytest.mark.parametrize("after", [False, True])
def test_a_picture_that_says_it_lies_on_its_side_is_turned(after: bool) -> None:
    """Also where it says so behind its pixels."""
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    assert np.array_equal(load_image(encode_png(image)), image)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(image).save(buffer, "PNG", exif=exif)
    data = buffer.getvalue()
    if after:
        start = data.index(b"eXIf") - 4
        stop = start + 12 + int.from_bytes(data[start : start + 4], "big")
        data = data[:start] + data[stop:-12] + data[start:stop] + data[-12:]
    assert np.array_equal(load_image(data), np.rot90(image, -1))


def test_a_transparent_picture_is_laid_on_white(tmp_path: Path) -> None:
    image, path = Image.new("RGB", (2, 2), (10, 20, 30)), tmp_path / "clear.png"
    image.save(path, transparency=(10, 20, 30))
    assert (load_image(path) == 255).all()
