"""SigLIP and SigLIP2 vision towers (arXiv 2303.15343, 2502.14786) from `transformers`, frozen.

Knows: a checkpoint folder or hub id, its own image processor, patch features after the last norm.
Does not know: connectors or Thinkers. Costs: the tower's own forward; SO400M at 384 pixels reads
729 patches of 1,152. Needs the extra `lumoomni[hf]`.

The tower never trains: gradients are off, and `train()` leaves it in evaluation mode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lumoomni.config import read_object
from lumoomni.errors import InputError
from lumoomni.model.vision import VisionFeatures

KINDS = ("siglip", "siglip_vision_model")
NOT_SEEN = ("text_model.", "logit_scale", "logit_bias")


@dataclass(frozen=True, kw_only=True)
class SiglipTowerConfig:
    """`source` is a folder or a hub id; the numbers are read from its config.json."""

    source: str
    image_size: int
    patch: int
    width: int

    @property
    def grid(self) -> int:
        """Patches along one side; what does not fill a patch is not seen."""
        return self.image_size // self.patch


class SiglipTower(nn.Module):
    """pixels [B, 3, S, S], as its own processor makes them -> VisionFeatures in its dtype.

    `cls` is the mean of the patches: the towers have no CLS vector.
    """

    def __init__(self, config: SiglipTowerConfig, model: nn.Module, processor: Any) -> None:
        super().__init__()
        self.config = config
        self.model = model.requires_grad_(False).eval()
        self._processor = processor

    def train(self, mode: bool = True) -> "SiglipTower":
        """Stays in evaluation mode: what was learned of its features must stay true."""
        return super().train(False)

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """Pictures uint8 [H, W, 3] of any size -> pixels [B, 3, S, S], by the tower's processor."""
        made = self._processor(
            images=list(images), return_tensors="pt", input_data_format="channels_last"
        )
        return made["pixel_values"]

    def processor_facts(self) -> str:
        """The processor's own settings as text: what features depend on beside the weights."""
        return self._processor.to_json_string()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> VisionFeatures:
        """Raises ValueError when the pictures have another size than the tower's."""
        size = self.config.image_size
        if tuple(pixels.shape[1:]) != (3, size, size):
            raise ValueError(
                f"this vision tower reads [B, 3, {size}, {size}], got {list(pixels.shape)}"
            )
        weight = next(self.model.parameters())
        out = self.model(pixel_values=pixels.to(weight.device, weight.dtype))
        return VisionFeatures(out.last_hidden_state.mean(1), out.last_hidden_state)


def load_siglip(
    source: str, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> SiglipTower:
    """Read a tower from a folder or the hub; of a whole SigLIP only the vision part.

    Raises InputError for another kind of model, or when tensors are missing or unexpected.
    """
    try:
        import transformers
        from transformers import SiglipVisionConfig, SiglipVisionModel
    except ImportError as error:
        raise InputError("a SigLIP tower needs `pip install lumoomni[hf]`") from error
    check_kind(source)
    shape = SiglipVisionConfig.from_pretrained(source)
    made: Any
    transformers.utils.logging.disable_progress_bar()  # `--json` prints nothing but JSON
    try:
        made = SiglipVisionModel.from_pretrained(
            source, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, SafetensorError) as error:
        raise InputError(f"{source} holds no whole safetensors weights: {error}") from error
    model, info = made
    missing = sorted(info["missing_keys"])
    odd = sorted(k for k in info["unexpected_keys"] if not k.startswith(NOT_SEEN))
    if missing or odd:
        raise InputError(
            f"{source} does not match its config.json: {len(missing)} tensors missing "
            f"{missing[:5]}, {len(odd)} unexpected {odd[:5]}"
        )
    size, patch = shape.image_size, shape.patch_size
    if not isinstance(size, int) or not isinstance(patch, int):
        raise InputError(f"{source} reads {size} pixels in patches of {patch}; both must be square")
    config = SiglipTowerConfig(source=source, image_size=size, patch=patch, width=shape.hidden_size)
    # The one that needs no torchvision has a name of its own since transformers 5.
    kind: Any = getattr(transformers, "SiglipImageProcessorPil", None)
    try:
        processor = (kind or transformers.SiglipImageProcessor).from_pretrained(source)
    except OSError as error:
        raise InputError(f"{source} has no preprocessor_config.json: {error}") from error
    return SiglipTower(config, model.to(device), processor)


def check_kind(source: str) -> None:
    """The kind of model, where the folder is here to be looked at."""
    folder = Path(source)
    if not folder.exists():
        return
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a Hugging Face checkpoint folder")
    kind = read_object(path).get("model_type")
    if kind not in KINDS:
        raise InputError(
            f"model_type of {path} is {kind!r}; only {' and '.join(KINDS)} can be loaded (SigLIP2 "
            "with a fixed size is one of them, NaFlex is not)"
        )
