"""The VQ picture codec as a tokenizer: pictures of any size to codes, and codes to pictures.

Knows: resizing and scaling of pixels. Does not know: ids or sequences. Costs: nano about 2 ms to
encode a picture on one core and 3 ms to decode it.

In fp32 and evaluation mode. Products of other shapes round otherwise, so what a batch says of a
picture counts only where rounding cannot have changed it (codecs/company.py).
"""

from collections.abc import Sequence

import numpy as np
import torch

from lumoomni.codecs.company import NEAR, Steps, in_company
from lumoomni.codecs.exact import exactly
from lumoomni.codecs.facts import CodecFacts, Coded
from lumoomni.codecs.image_vq import ImageCodec
from lumoomni.errors import InputError
from lumoomni.media.image import normalise, resize

ROOM = 8
"""Pictures of a batch: more gain nothing on a CPU, where what is computed leaves the cache."""


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
            return self._alone(self._sized(media))

    def margins(self, media: np.ndarray) -> np.ndarray:
        """float64 [N, 1]: how far the next code was behind the chosen one."""
        with exactly(self._codec, self.facts.name):
            return self._codec.margins(self._pixels([self._sized(media)]))[0].cpu().numpy()

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        """`encode` of each, bit for bit; several at a time where torch has several threads."""
        for picture in media:
            _refuse_no_picture(picture)
        groups = [media[i : i + ROOM] for i in range(0, len(media), ROOM)]
        steps = Steps(self._sized, self._alone, self._together)
        return in_company(groups, steps, self._codec, self.facts.name)

    def _sized(self, picture: np.ndarray) -> np.ndarray:
        return resize(picture, self.facts.image_size)

    def _pixels(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        """[B, 3, S, S] where the codec is."""
        return normalise(pictures).to(self._device())

    def _alone(self, picture: np.ndarray) -> Coded:
        return Coded(self._codec.encode(self._pixels([picture]))[0].cpu().numpy()[:, None])

    def _together(self, pictures: Sequence[np.ndarray]) -> list[Coded | None]:
        codes, clear = self._codec.encode_clear(self._pixels(pictures).contiguous(), NEAR)
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
