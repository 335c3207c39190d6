"""The VQ picture codec as a tokenizer: pictures of any size to codes, and codes to pictures.

Knows: resizing and scaling of pixels. Does not know: ids or sequences. Costs: nano about 2 ms to
encode a picture on one core and 3 ms to decode it.

In fp32 and evaluation mode. Products of other shapes round otherwise, so what a batch says of a
picture counts only where rounding cannot have changed it (codecs/company.py).
"""

from collections.abc import Sequence

import numpy as np
import torch

from lumoomni.codecs.company import NEAR, ROOM, in_company
from lumoomni.codecs.exact import exactly
from lumoomni.codecs.facts import CodecFacts, Coded
from lumoomni.codecs.image_vq import ImageCodec
from lumoomni.errors import InputError
from lumoomni.media.image import normalise, resize


class ImageTokens:
    """Pictures uint8 [H, W, 3] -> codes int64 [N, 1] -> pictures uint8 [S, S, 3].

    `weights` is the SHA-256 of the codec's weights.
    """

    def __init__(self, codec: ImageCodec, weights: str) -> None:
        if codec.training:
            raise ValueError("a codec must be in evaluation mode to give the same codes twice")
        self._codec = codec
        size = codec.config.image_size
        self.facts = CodecFacts(
            kind="image",
            name="lumo-image-vq",
            weights=weights,
            codebooks=1,
            codebook_size=codec.config.codebook_size,
            tokens=codec.config.tokens,
            image_size=size,
            preprocessing=f"rgb; stretched to {size} x {size}, bicubic of Pillow; scaled to -1..1",
        )

    def encode(self, media: np.ndarray) -> Coded:
        """Raises InputError for what is no picture, ValueError in training mode."""
        _refuse_no_picture(media)
        with exactly(self._codec, self.facts.name):
            pixels = normalise([resize(media, self.facts.image_size)])
            codes = self._codec.encode(pixels.to(self._device()))[0]
        return Coded(codes.cpu().numpy()[:, None])

    def margins(self, media: np.ndarray) -> np.ndarray:
        """float64 [N, 1]: how far the next code was behind the chosen one."""
        with exactly(self._codec, self.facts.name):
            pixels = normalise([resize(media, self.facts.image_size)])
            return self._codec.margins(pixels.to(self._device()))[0].cpu().numpy()

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        """`encode` of each, bit for bit; several at a time where torch has several threads."""
        for picture in media:
            _refuse_no_picture(picture)
        groups = [media[i : i + ROOM] for i in range(0, len(media), ROOM)]
        return in_company(groups, self._together, self.encode, self._codec)

    def _together(self, media: Sequence[np.ndarray]) -> list[Coded | None]:
        size = self.facts.image_size
        with exactly(self._codec, self.facts.name):
            pixels = normalise([resize(picture, size) for picture in media])
            codes, clear = self._codec.encode_clear(pixels.to(self._device()), NEAR)
        found = zip(codes.cpu().numpy(), clear.tolist(), strict=True)
        return [Coded(one[:, None]) if sure else None for one, sure in found]

    def decode(self, coded: Coded) -> np.ndarray:
        """Raises InputError for codes of another shape or out of range."""
        self.facts.check(coded)
        codes = torch.from_numpy(np.asarray(coded.codes, dtype=np.int64))[None, :, 0]
        with exactly(self._codec, self.facts.name):
            pixels = self._codec.decode(codes.to(self._device()))[0]
        levels = ((pixels.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255)
        return levels.to(torch.uint8).cpu().numpy()

    def _device(self) -> torch.device:
        return self._codec.quantiser.codebooks.device


def _refuse_no_picture(media: np.ndarray) -> None:
    if media.ndim != 3 or media.shape[2] != 3 or media.dtype != np.uint8 or 0 in media.shape:
        raise InputError(
            f"a picture to be encoded is uint8 [H, W, 3], not {media.dtype} "
            f"{list(media.shape)}; read it with lumoomni.media.image.load_image"
        )
