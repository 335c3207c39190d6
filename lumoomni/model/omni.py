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
from lumoomni.model.audio import AudioTower
from lumoomni.model.connector import LinearConnector
from lumoomni.model.perceiver import PerceiverConnector
from lumoomni.model.siglip import SiglipTower
from lumoomni.model.thinker import Thinker, ThinkerOutput
from lumoomni.model.vision import VisionTower


@dataclass(frozen=True, kw_only=True)
class OmniInputs:
    """A batch. ids [B, T] with negative placeholders, right-padded with any id to `lengths` [B].

    pixels [I, 3, S, S] and mels [A, M, n_mels] with mel_lengths [A] in reading order, or None.
    documents [B, T] number the conversations of packed rows, padding as one of its own. numbers
    [B, T] say which picture a position is of, where one row has several (`Thinker.numbered`).
    """

    ids: Tensor
    lengths: Tensor
    pixels: Tensor | None = None
    mels: Tensor | None = None
    mel_lengths: Tensor | None = None
    documents: Tensor | None = None
    numbers: Tensor | None = None


class OmniModel(nn.Module):
    """A Thinker with the senses it is given: a tower and a connector for each kind of media.

    Raises ValueError when widths do not meet or a tower comes without its connector.
    """

    def __init__(
        self,
        thinker: Thinker,
        *,
        vision: VisionTower | SiglipTower | None = None,
        image_connector: LinearConnector | PerceiverConnector | None = None,
        audio: AudioTower | None = None,
        audio_connector: LinearConnector | None = None,
    ) -> None:
        super().__init__()
        for name, tower, connector in (
            ("vision", vision, image_connector),
            ("audio", audio, audio_connector),
        ):
            _check_widths(name, tower, connector, thinker.config.width)
        self.thinker = thinker
        self.vision, self.image_connector = vision, image_connector
        self.audio, self.audio_connector = audio, audio_connector

    @property
    def image_positions(self) -> int:
        """Sequence positions that one picture takes."""
        return 0 if self.image_connector is None else self.image_connector.config.positions

    def image_features(self, pixels: Tensor) -> Tensor:
        """pixels [I, 3, S, S] -> [I, positions, D]. Raises ValueError when the model is blind."""
        if self.vision is None or self.image_connector is None:
            raise ValueError("this model has no vision tower and connector, but a picture came")
        return self.image_connector.picture(self.vision(pixels))

    def audio_features(self, mels: Tensor, mel_lengths: Tensor) -> Tensor:
        """mels [A, M, n_mels] -> valid frames of all clips in a row [sum F, D]."""
        if self.audio is None or self.audio_connector is None:
            raise ValueError("this model has no audio tower and connector, but a sound came")
        out = self.audio(mels, mel_lengths)
        return self.audio_connector.speech(out.features, out.mask)

    def embed(self, inputs: OmniInputs, images: Tensor | None = None) -> Tensor:
        """ids and media -> [B, T, D]. Raises ValueError when counts do not meet.

        `images` [I, positions, D] are taken instead of what the pictures would give.
        """
        # Placeholders borrow row 0 for a moment; every one of them is overwritten below.
        x = self.thinker.embed(inputs.ids.clamp(min=0))
        if images is None and inputs.pixels is not None:
            images = self.image_features(inputs.pixels)
        images = None if images is None else images.flatten(0, 1)
        sounds = None
        if inputs.mels is not None and inputs.mel_lengths is not None:
            sounds = self.audio_features(inputs.mels, inputs.mel_lengths)
        x = scatter(x, inputs.ids, IMAGE_PATCH, images, "image")
        x = scatter(x, inputs.ids, AUDIO_FRAME, sounds, "audio")
        return self.thinker.numbered(x, inputs.numbers)

    def forward(
        self, inputs: OmniInputs, images: Tensor | None = None, asked: Tensor | None = None
    ) -> ThinkerOutput:
        """hidden [B, T, D] over the whole batch; padding is never read. `asked` as in the
        Thinker."""
        spec = AttentionSpec(lengths=inputs.lengths, documents=inputs.documents)
        return self.thinker(self.embed(inputs, images), attention=spec, asked=asked)


def _check_widths(
    name: str,
    tower: VisionTower | SiglipTower | AudioTower | None,
    connector: LinearConnector | PerceiverConnector | None,
    width: int,
) -> None:
    if (tower is None) != (connector is None):
        raise ValueError(f"the {name} tower and its connector must come together")
    if tower is None or connector is None:
        return
    shape = connector.config
    if shape.source_width != tower.config.width:
        raise ValueError(
            f"the {name} tower is {tower.config.width} wide, but its connector reads "
            f"{shape.source_width}"
        )
    if shape.target_width != width:
        raise ValueError(
            f"the {name} connector writes {shape.target_width}, but the Thinker is {width} wide"
        )


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
