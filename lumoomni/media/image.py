"""Picture files to RGB arrays, and arrays to the pixels that a tower reads.

Knows: decoding with Pillow, orientation, colour modes, transparency, honest errors.
Does not know: models. Costs: one decode; a resize of a photograph takes a few milliseconds.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lumoomni.errors import InputError
from lumoomni.runtime import atomic_write_bytes

MOST_PIXELS = 64_000_000


def load_image(
    source: "str | Path | bytes | Image.Image | np.ndarray", name: str = "the given bytes"
) -> np.ndarray:
    """uint8 [H, W, 3]: upright, first frame, transparency on white.

    Bytes are called `name` in errors.
    Raises InputError in one sentence for anything that cannot be used as a picture.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the given picture")
    if isinstance(source, bytes):
        return _decode(source, name)
    path = Path(source)
    if path.is_dir():
        raise InputError(f"{path} is a directory; give a picture file")
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the path of the picture")
    return _decode(path.read_bytes(), str(path))


def resize(image: np.ndarray, size: int, *, letterbox: bool = False) -> np.ndarray:
    """uint8 [size, size, 3], bicubic; stretched, or padded with grey when `letterbox`."""
    if image.shape[:2] == (size, size):
        return image
    picture = Image.fromarray(image)
    if letterbox:
        padded = ImageOps.pad(picture, (size, size), Image.Resampling.BICUBIC, (128, 128, 128))
        return np.asarray(padded)
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))


def normalise(images: Sequence[np.ndarray]) -> Tensor:
    """uint8 [S, S, 3] pictures of one size -> [B, 3, S, S] float32 in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(images))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def save_png(path: Path | str, image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] atomically."""
    atomic_write_bytes(Path(path), encode_png(image))


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _decode(data: bytes, name: str) -> np.ndarray:
    if not data:
        raise InputError(f"{name} is empty (0 bytes); give a picture file")
    try:
        with warnings.catch_warnings():
            # Pillow only warns at half its own limit; ours is checked below with both numbers.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                width, height = picture.size
                if width * height > MOST_PIXELS:
                    raise InputError(
                        f"{name} has {width} x {height} = {width * height:,} pixels, at most "
                        f"{MOST_PIXELS:,} are read; make it smaller"
                    )
                picture.load()
                if picture.format == "PNG" and picture.mode == "RGB" and not picture.info:
                    return np.array(picture)  # nothing is said that could change a pixel
                return _to_rgb(picture, name)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name} has more pixels than the {MOST_PIXELS:,} that are read ({error}); "
            "make it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is no picture in a known format ({len(data):,} bytes); convert it to PNG or "
            "JPEG"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is damaged or cut off ({error}); get a whole copy") from error


def _to_rgb(picture: Image.Image, name: str) -> np.ndarray:
    if picture.width * picture.height == 0:
        raise InputError(f"{name} is {picture.width} x {picture.height} pixels; it shows nothing")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        # 16-bit and 32-bit greys: Pillow's own conversion would clip them to white.
        grey = np.asarray(picture, dtype=np.float64)
        # "I;16" says how deep it is; "I" and "F" hold either, which their values tell.
        deep = picture.mode.startswith("I;16") or grey.max() > 255
        top = 65535.0 if deep else 255.0
        eight = np.clip(grey * (255.0 / top), 0, 255).round().astype(np.uint8)
        return np.repeat(eight[..., None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.array(picture.convert("RGB"))


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or 0 in array.shape:
        raise InputError(
            f"the given array has shape {array.shape}; a picture is [H, W], [H, W, 3] or [H, W, 4]"
        )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError("the given picture holds NaN or infinite values; give numbers")
        array = np.clip(array * (255.0 if array.max() <= 1.0 else 1.0), 0, 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"the given picture holds {array.dtype}; give uint8, or floats in [0, 1]")
    return load_image(Image.fromarray(array)) if array.shape[2] == 4 else array
