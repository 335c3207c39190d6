"""Pictures as people have them, and the ones that cannot be used."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumoomni.errors import InputError
from lumoomni.media.image import load_image, normalise, resize, save_png

RED = (255, 0, 0)


def picture(mode: str = "RGB", size: tuple[int, int] = (20, 10)) -> Image.Image:
    return Image.new("RGB", size, RED).convert(mode)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "name"), [("RGB", "a.png"), ("CMYK", "a.jpg"), ("P", "a.png"), ("RGBA", "a.png")]
)
def test_colour_modes_stay_red(tmp_path: Path, mode: str, name: str) -> None:
    array = load_image(saved(picture(mode), tmp_path / name))
    assert array.shape == (10, 20, 3) and array.dtype == np.uint8
    assert np.abs(array[5, 5].astype(int) - RED).max() < 12


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 100).astype(np.uint16).reshape(10, 10)
    array = load_image(saved(Image.fromarray(grey), tmp_path / "a.png"))
    assert array[0, 0, 0] == 0 and array[-1, -1, 0] == 255
    assert 120 < array[5, 0, 0] < 136


def test_a_dark_sixteen_bit_grey_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 255, np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").max() <= 1


def test_transparency_becomes_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert (load_image(saved(clear, tmp_path / "a.png")) == 255).all()


def test_animated_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 6), c) for c in (RED, (0, 0, 255))]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert tuple(load_image(path)[0, 0]) == RED


def test_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    assert load_image(saved(picture(), tmp_path / "a.jpg", exif=exif)).shape == (20, 10, 3)


def test_one_pixel_and_arrays() -> None:
    assert load_image(picture(size=(1, 1))).shape == (1, 1, 3)
    assert load_image(np.zeros((3, 4), np.uint8)).shape == (3, 4, 3)
    assert load_image(np.ones((3, 4, 3), np.float32))[0, 0, 0] == 255
    with pytest.raises(InputError, match="shape"):
        load_image(np.zeros((3, 4, 7), np.uint8))


def test_unusable_files_say_why(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        whole, "PNG"
    )
    for name, data, words in (
        ("cut.png", whole.getvalue()[:2000], "damaged or cut off"),
        ("empty.png", b"", "empty"),
        ("text.png", b"hello, I am a text", "no picture"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match=words) as caught:
            load_image(path)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no file"):
        load_image(tmp_path / "missing.png")
    with pytest.raises(InputError, match="directory"):
        load_image(tmp_path)


def test_bombs_are_refused_before_decoding(tmp_path: Path) -> None:
    path = saved(Image.new("1", (9000, 9000)), tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"9000 x 9000 = 81,000,000 .* 64,000,000"):
        load_image(path)
    path = saved(Image.new("1", (20000, 20000)), tmp_path / "bomb2.png")
    with pytest.raises(InputError, match="64,000,000"):
        load_image(path)


def test_resize_and_pixels(tmp_path: Path) -> None:
    image = load_image(picture())
    assert resize(image, 8).shape == (8, 8, 3)
    assert resize(image, 8, letterbox=True)[0, 0].tolist() == [128, 128, 128]
    assert resize(resize(image, 8), 8) is not None
    pixels = normalise([resize(image, 8)])
    assert pixels.shape == (1, 3, 8, 8)
    assert pixels[0, :, 0, 0].tolist() == [1.0, -1.0, -1.0]
    save_png(tmp_path / "out.png", image)
    assert (load_image(tmp_path / "out.png") == image).all()
