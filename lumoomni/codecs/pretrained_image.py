"""Picture codecs of `transformers`: those of Chameleon, Emu3 and Janus, each as a MediaCodec.

Knows: one fixed square size for each, so that every picture has as many codes; the colours that
their processors want; where the library departs from the original. Does not know: folders or hubs
(codecs/pretrained.py), ids or sequences. Costs: the models' own, one picture at a time, in fp32.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from lumoomni.codecs.exact import each, exactly
from lumoomni.codecs.facts import CodecFacts, Coded
from lumoomni.errors import InputError
from lumoomni.media.image import load_image

Fit = Literal["crop", "pad", "stretch"]
GREY = (128, 128, 128)


@dataclass(frozen=True, kw_only=True)
class PictureRules:
    """How a picture is made ready: a square of `size` pixels by `fit`, then x * scale - mean over
    std for each colour. `resample` is Pillow's number of the filter."""

    size: int
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: int = 3
    fit: Fit = "crop"

    @property
    def words(self) -> str:
        """What `CodecFacts.preprocessing` says."""
        return (
            f"{self.fit} {self.size}, filter {self.resample}, x {self.scale:.9g} - "
            f"{list(self.mean)} / {list(self.std)}"
        )

    def ready(self, picture: np.ndarray) -> Tensor:
        """uint8 [H, W, 3] -> float32 [1, 3, size, size]."""
        image, square = Image.fromarray(load_image(picture)), (self.size, self.size)
        filter = Image.Resampling(self.resample)
        if image.size != square:
            if self.fit == "crop":
                image = ImageOps.fit(image, square, filter)
            elif self.fit == "pad":
                image = ImageOps.pad(image, square, filter, GREY)
            else:
                image = image.resize(square, filter)
        pixels = torch.from_numpy(np.array(image)).float() * self.scale
        pixels = (pixels - torch.tensor(self.mean)) / torch.tensor(self.std)
        return pixels.permute(2, 0, 1)[None].contiguous()

    def picture(self, pixels: Tensor) -> np.ndarray:
        """float32 [1, 3, size, size] -> uint8 [size, size, 3]."""
        found = pixels[0].permute(1, 2, 0).cpu()
        found = (found * torch.tensor(self.std) + torch.tensor(self.mean)) / self.scale
        return found.round().clamp(0, 255).to(torch.uint8).numpy()


class PretrainedPicture(ABC):
    """picture uint8 [H, W, 3] of any size <-> codes int64 [N, 1]; what the three have in common.

    `processor` is the dict of preprocessor_config.json; `image_size` 0 takes the codec's own.
    """

    DECODES = True
    facts: CodecFacts

    def __init__(
        self,
        model: nn.Module,
        weights: str,
        processor: dict[str, Any],
        *,
        image_size: int = 0,
        fit: Fit = "crop",
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self._config: Any = model.config
        factor = 2 ** (len(self._config.channel_multiplier) - 1)
        own, fixed = self._size(factor)
        size = image_size or own
        if size % factor or (fixed and size != own):
            wanted = f"{own}" if fixed else f"a multiple of {factor}"
            raise InputError(f"{self._name()} reads pictures of {wanted} pixels a side, not {size}")
        self._side = size // factor
        self.rules = rules_of(processor, size, fit, self._name())
        self.facts = CodecFacts(
            kind="image",
            name=self._name(),
            weights=weights,
            codebooks=1,
            codebook_size=self._codebook().num_embeddings,
            tokens=self._side**2,
            image_size=size,
            preprocessing=self.rules.words,
            decodes=self.DECODES,
        )

    def encode(self, picture: np.ndarray) -> Coded:
        """Raises InputError for what is no picture, ValueError in training mode."""
        with exactly(self.model, self.facts.name):
            pixels = self.rules.ready(picture).to(self._device())
            codes = self._encode(pixels).reshape(-1, 1).cpu().numpy()
        return Coded(codes.astype(np.int64))

    def seen(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [image_size, image_size, 3]: what is left of a picture once it is made ready."""
        return self.rules.picture(self.rules.ready(picture))

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        """`encode` of each, bit for bit."""
        return each(self.encode, media, self.model)

    def decode(self, coded: Coded) -> np.ndarray:
        """uint8 [image_size, image_size, 3]. Raises InputError for codes out of range, of another
        number, and for a codec that only encodes."""
        self.facts.check(coded)
        with exactly(self.model, self.facts.name):
            codes = torch.from_numpy(np.ascontiguousarray(coded.codes, dtype=np.int64)).to(
                self._device()
            )
            return self.rules.picture(self._decode(codes.reshape(1, -1)).float())

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _codebook(self) -> nn.Embedding:
        quantize: Any = self.model.quantize
        return quantize.embedding

    @abstractmethod
    def _name(self) -> str: ...

    @abstractmethod
    def _size(self, factor: int) -> tuple[int, bool]:
        """(pixels of a side, whether it cannot be another)."""

    @abstractmethod
    def _encode(self, pixels: Tensor) -> Tensor:
        """pixels [1, 3, S, S] -> N codes in any shape."""

    def _decode(self, codes: Tensor) -> Tensor:
        """codes [1, N] -> pixels [1, 3, S, S]. Never asked of a codec that only encodes."""
        raise InputError(f"{self._name()} only encodes")


class ChameleonPicture(PretrainedPicture):
    """The codec of Chameleon (arXiv 2405.09818). The library holds its encoder alone."""

    DECODES = False

    def _name(self) -> str:
        return "chameleon-vq"

    def _size(self, factor: int) -> tuple[int, bool]:
        return self._config.resolution, True

    def _encode(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        out = model.encode(pixels)
        # transformers 4 gives (quantised, loss, codes).
        return out.image_tokens if hasattr(out, "image_tokens") else out[2]


class Emu3Picture(PretrainedPicture):
    """The codec of Emu3 (arXiv 2409.18869). It takes any size; here it is one, a square.

    It holds BatchNorm, whose averages move in training mode and stay moved after it.
    """

    USUAL = 512

    def _name(self) -> str:
        return "emu3-vq"

    def _size(self, factor: int) -> tuple[int, bool]:
        return self.USUAL, False

    def _encode(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        out = model.encode(pixels, image_sizes=torch.tensor([pixels.shape[-2:]]))
        # transformers 4 gives the list itself.
        return getattr(out, "image_tokens", out)[0]

    def _decode(self, codes: Tensor) -> Tensor:
        model: Any = self.model
        return model.decode(codes.reshape(1, self._side, self._side))[:1].reshape(
            1, 3, self.facts.image_size, self.facts.image_size
        )


class JanusPicture(PretrainedPicture):
    """The codec of Janus (arXiv 2410.13848), which is the VQ-16 of LlamaGen (arXiv 2406.06525).

    The original looks for the nearest entry among vectors of length one, on both sides. The
    library's `encode` leaves that out, while its `decode` has it: so the search is done here.
    """

    def _name(self) -> str:
        return "janus-vq"

    def _size(self, factor: int) -> tuple[int, bool]:
        return self._config.num_patches * factor, True

    def _encode(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        found = model.quant_conv(model.encoder(pixels)).permute(0, 2, 3, 1)
        vectors = F.normalize(found.reshape(-1, found.shape[-1]), dim=-1)
        book = F.normalize(self._codebook().weight, dim=-1)
        squares = (vectors**2).sum(1, keepdim=True) + (book**2).sum(1)
        return (squares - 2 * vectors @ book.T).argmin(1)

    def _decode(self, codes: Tensor) -> Tensor:
        model: Any = self.model
        return model.decode(codes)


def rules_of(processor: dict[str, Any], size: int, fit: Fit, name: str) -> PictureRules:
    """The rules in a preprocessor_config.json. Raises InputError for one that has no colours."""
    if fit not in ("crop", "pad", "stretch"):
        raise InputError(
            f"pictures of {name} cannot be fitted by {fit!r}; use crop, pad or stretch"
        )
    try:
        scaled, centred = processor.get("do_rescale", True), processor.get("do_normalize", True)
        mean = processor["image_mean"] if centred else (0.0, 0.0, 0.0)
        std = processor["image_std"] if centred else (1.0, 1.0, 1.0)
        scale = float(processor["rescale_factor"]) if scaled else 1.0
        rules = PictureRules(
            size=size,
            scale=scale,
            mean=tuple(map(float, mean)),  # type: ignore[arg-type]
            std=tuple(map(float, std)),  # type: ignore[arg-type]
            resample=int(processor.get("resample", 3)),
            fit=fit,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the preprocessor_config.json of {name} does not say how colours are scaled "
            f"({error!r}); save the model's own image processor beside it"
        ) from error
    if len(rules.mean) != 3 or len(rules.std) != 3 or min(rules.std) <= 0 or rules.scale <= 0:
        raise InputError(
            f"the preprocessor_config.json of {name} has mean {rules.mean}, std {rules.std} and "
            f"scale {rules.scale}; there must be three of each, and std and scale positive"
        )
    return rules
