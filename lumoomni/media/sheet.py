"""A sheet of small pictures with a line or two of text under each, for people to look at.

Knows: arrays and Pillow's own small letters. Does not know: where the pictures come from.
Costs: about 0.3 ms a picture.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LINE = 11
LETTER = 6


def sheet(
    pictures: Sequence[np.ndarray], texts: Sequence[str], *, columns: int = 6, side: int = 128
) -> np.ndarray:
    """uint8 [S, S, 3] each -> uint8 [H, W, 3]: rows of `columns`, each `side` pixels wide.

    Raises ValueError without pictures, or with another number of texts.
    """
    if not len(pictures) or len(pictures) != len(texts):
        raise ValueError(f"{len(pictures)} pictures and {len(texts)} texts make no sheet")
    lines = [textwrap.wrap(text, side // LETTER) or [""] for text in texts]
    high = side + LINE * max(len(one) for one in lines) + 6
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * (side + 4), rows * high), "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(size=LINE - 1)
    for number, (picture, said) in enumerate(zip(pictures, lines, strict=True)):
        x, y = number % columns * (side + 4), number // columns * high
        whole.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST), (x, y))
        for place, line in enumerate(said):
            pen.text((x + 1, y + side + 2 + place * LINE), line, fill="black", font=font)
    return np.asarray(whole)
