"""The omni model: one Thinker that reads text ids, pictures and sound in one sequence.

Knows: embed ids, encode and connect media, scatter features at placeholders, run the Thinker.
Does not know: tokenizers, files, losses or sampling.
Costs: the sum of its parts; the scatter is one masked write for each kind of media.

Features are matched to placeholders in reading order, row by row. Their counts are compared and
a ValueError names both numbers: scattering anyway would silently corrupt the sequence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lumoomni.ids import AUDIO_FRAME, IMAGE_PATCH
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.audio import AudioTower, AudioTowerConfig
from lumoomni.model.connector import LinearConnector, LinearConnectorConfig
from lumoomni.model.talker import Talker, TalkerConfig
from lumoomni.model.thinker import Thinker, ThinkerConfig, ThinkerOutput
from lumoomni.model.vision import VisionTower, VisionTowerConfig


@dataclass(frozen=True, kw_only=True)
class OmniConfig:
    """The parts. The parent owns the shared widths and checks that they meet."""

    thinker: ThinkerConfig
    vision: VisionTowerConfig
    audio: AudioTowerConfig
    image_connector: LinearConnectorConfig
    audio_connector: LinearConnectorConfig
    talker: TalkerConfig

    def __post_init__(self) -> None:
        pairs = (
            ("vision tower", self.vision.encoder.width, self.image_connector.source_width),
            ("audio tower", self.audio.encoder.width, self.audio_connector.source_width),
            ("image connector", self.image_connector.target_width, self.thinker.width),
            ("audio connector", self.audio_connector.target_width, self.thinker.width),
            ("Talker's source", self.talker.source_width, self.thinker.width),
        )
        for name, one, other in pairs:
            if one != other:
                raise ValueError(f"{name} is {one} wide but must be {other} to fit")


@dataclass(frozen=True, kw_only=True)
class OmniInputs:
    """A batch. ids [B, T] with negative placeholders, right-padded with any id to `lengths` [B].

    pixels [I, 3, S, S] and mels [A, M, n_mels] with mel_lengths [A] in reading order, or None.
    """

    ids: Tensor
    lengths: Tensor
    pixels: Tensor | None = None
    mels: Tensor | None = None
    mel_lengths: Tensor | None = None


class OmniModel(nn.Module):
    """Thinker, two towers, two connectors and the Talker."""

    def __init__(self, config: OmniConfig) -> None:
        super().__init__()
        self.config = config
        self.thinker = Thinker(config.thinker)
        self.vision = VisionTower(config.vision)
        self.audio = AudioTower(config.audio)
        self.image_connector = LinearConnector(config.image_connector)
        self.audio_connector = LinearConnector(config.audio_connector)
        self.talker = Talker(config.talker)

    def image_features(self, pixels: Tensor) -> Tensor:
        """pixels [I, 3, S, S] -> [I, positions, D]."""
        return self.image_connector.picture(self.vision(pixels))

    def audio_features(self, mels: Tensor, mel_lengths: Tensor) -> Tensor:
        """mels [A, M, n_mels] -> valid frames of all clips in a row [sum F, D]."""
        out = self.audio(mels, mel_lengths)
        return self.audio_connector(out.features[out.mask])

    def embed(self, inputs: OmniInputs) -> Tensor:
        """ids and media -> [B, T, D]. Raises ValueError when counts do not meet."""
        # Placeholders borrow row 0 for a moment; every one of them is overwritten below.
        x = self.thinker.embed(inputs.ids.clamp(min=0))
        images = None
        if inputs.pixels is not None:
            images = self.image_features(inputs.pixels).flatten(0, 1)
        sounds = None
        if inputs.mels is not None and inputs.mel_lengths is not None:
            sounds = self.audio_features(inputs.mels, inputs.mel_lengths)
        x = scatter(x, inputs.ids, IMAGE_PATCH, images, "image")
        return scatter(x, inputs.ids, AUDIO_FRAME, sounds, "audio")

    def forward(self, inputs: OmniInputs) -> ThinkerOutput:
        """hidden [B, T, D] over the whole batch; padding is never read."""
        spec = AttentionSpec(lengths=inputs.lengths)
        return self.thinker(self.embed(inputs), attention=spec)


def scatter(x: Tensor, ids: Tensor, placeholder: int, features: Tensor | None, name: str) -> Tensor:
    """Put features [K, D] at the K placeholder positions of x [B, T, D], in reading order.

    Raises ValueError with both counts when they differ.
    """
    where = ids == placeholder
    wanted = int(where.sum())
    given = 0 if features is None else features.shape[0]
    if wanted != given:
        raise ValueError(
            f"the sequences hold {wanted} {name} placeholders but {given} {name} features came; "
            "they must be equal"
        )
    if features is None:
        return x
    out = x.clone()
    out[where] = features.to(out.dtype)
    return out


def drop_padding(x: Tensor, lengths: Tensor) -> list[Tensor]:
    """[B, T, D] -> a list of [T_i, D], for left-padded generation."""
    return [row[:length] for row, length in zip(x, lengths.tolist(), strict=True)]


def device_of(module: nn.Module) -> torch.device:
    """Where the module's parameters live."""
    return next(module.parameters()).device
