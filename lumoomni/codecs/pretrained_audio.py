"""Sound codecs of `transformers`: EnCodec, Mimi and DAC, each as a MediaCodec.

Knows: how each one pads, which side data it needs, where its library floors. Does not know:
folders or hubs (codecs/pretrained.py), ids or sequences. Costs: the models' own, one clip at a
time, in fp32.

Codebooks are residual: the first k are the codes of the codec with k books, so that k is free.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lumoomni.codecs.exact import each, exactly
from lumoomni.codecs.facts import CodecFacts, Coded
from lumoomni.errors import InputError
from lumoomni.media.audio import Audio


class PretrainedSound(ABC):
    """samples float32 [S], or [2, S] for two channels <-> codes int64 [F, Q].

    What the three have in common. `books` is Q; 0 takes the codec's usual number.
    """

    USUAL, PADDING = 8, "none"
    facts: CodecFacts

    def __init__(self, model: nn.Module, weights: str, *, books: int = 0) -> None:
        self.model = model.requires_grad_(False).eval()
        self._config: Any = model.config
        most = self._most_books()
        if not 0 <= books <= most:
            raise InputError(
                f"{self._name()} has {most} codebooks, not {books}; ask for 1 to {most}"
            )
        self._books = books or min(self.USUAL, most)
        self.facts = CodecFacts(
            kind="audio",
            name=self._name(),
            weights=weights,
            codebooks=self._books,
            codebook_size=self._config.codebook_size,
            frame_rate=self._frame_rate(),
            sample_rate=self._config.sampling_rate,
            channels=self._channels(),
            side=self._side(),
            preprocessing=self.PADDING,
        )

    def encode(self, samples: np.ndarray) -> Coded:
        """Raises InputError for sound of another number of channels, or too short for a frame;
        ValueError in training mode."""
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        channels = self.facts.channels
        wanted = 1 if channels == 1 else 2
        if samples.ndim != wanted or (wanted == 2 and len(samples) != channels):
            shape = "[S]" if channels == 1 else f"[{channels}, S]"
            raise InputError(f"{self.facts.name} reads samples {shape}, got {list(samples.shape)}")
        if samples.shape[-1] < 1 or not np.isfinite(samples).all():
            raise InputError(
                f"{self.facts.name} got {samples.shape[-1]} samples, or some that are not finite; "
                "give at least one frame of sound"
            )
        with exactly(self.model, self.facts.name):
            wave = torch.from_numpy(samples.reshape(1, channels, -1)).to(self._device())
            return self._encode(wave)

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        """`encode` of each, bit for bit."""
        return each(self.encode, media, self.model)

    def decode(self, coded: Coded) -> Audio:
        """Whole frames, so at the end up to one more than was encoded; samples [S], or [S, 2].

        Raises InputError for codes out of range and for missing side data.
        """
        self.facts.check(coded)
        with exactly(self.model, self.facts.name):
            codes = torch.from_numpy(np.ascontiguousarray(coded.codes, dtype=np.int64)).to(
                self._device()
            )
            wave = self._decode(codes.T, coded.side).reshape(self.facts.channels, -1)
        samples = wave[0] if self.facts.channels == 1 else wave.T
        return Audio(np.ascontiguousarray(samples.cpu().numpy()), self.facts.sample_rate)

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @abstractmethod
    def _name(self) -> str: ...

    @abstractmethod
    def _most_books(self) -> int: ...

    @abstractmethod
    def _frame_rate(self) -> float: ...

    def _channels(self) -> int:
        return 1

    def _side(self) -> tuple[str, ...]:
        return ()

    @abstractmethod
    def _encode(self, wave: Tensor) -> Coded:
        """wave [1, channels, S]."""

    @abstractmethod
    def _decode(self, codes: Tensor, side: dict[str, Any]) -> Tensor:
        """codes [Q, F] -> a wave of `channels` rows, with any leading ones."""


class EncodecSound(PretrainedSound):
    """EnCodec (arXiv 2210.13438) at 24, 32 or 48 kHz.

    The one at 48 kHz codes chunks of a second, each divided by its own loudness: its `scales`, one
    a chunk, and the `last_frame_pad_length` are side data, without which there is no decoding, so
    that a model cannot speak with it. The last chunk is not filled up: padding changes its codes.
    """

    USUAL = 4
    SCALES, PAD = "scales", "last_frame_pad_length"

    def _name(self) -> str:
        return f"encodec_{self._config.sampling_rate // 1000}khz"

    def _bandwidth(self, books: int) -> float:
        """The least bandwidth with so many codebooks."""
        for bandwidth in sorted(self._config.target_bandwidths):
            if self._books_at(bandwidth) >= books:
                return bandwidth
        raise AssertionError("books were checked when the codec was made")

    def _books_at(self, bandwidth: float) -> int:
        quantizer: Any = self.model.quantizer
        return quantizer.get_num_quantizers_for_bandwidth(bandwidth)

    def _most_books(self) -> int:
        return self._books_at(max(self._config.target_bandwidths))

    def _frame_rate(self) -> float:
        chunk, stride = self._config.chunk_length, self._config.chunk_stride
        if chunk is None:
            return self._config.sampling_rate / self._config.hop_length
        # Chunks overlap, so that there are more frames than samples / hop.
        return self._chunk_frames() * self._config.sampling_rate / stride

    def _chunk_frames(self) -> int:
        return -(-self._config.chunk_length // self._config.hop_length)

    def _channels(self) -> int:
        return self._config.audio_channels

    def _side(self) -> tuple[str, ...]:
        chunked = self._config.chunk_length is not None
        return (self.SCALES, self.PAD) if chunked or self._config.normalize else ()

    def _encode(self, wave: Tensor) -> Coded:
        model: Any = self.model
        out = model.encode(wave, bandwidth=self._bandwidth(self._books))
        codes = out.audio_codes[:, 0, : self._books].transpose(1, 2).flatten(0, 1)
        if not self.facts.side:
            return Coded(codes.cpu().numpy())
        pad = int(out.last_frame_pad_length)
        # Without normalising there are no scales: 1 says the same.
        scales = [1.0 if one is None else float(one.reshape(())) for one in out.audio_scales]
        return Coded(codes[: len(codes) - pad].cpu().numpy(), {self.SCALES: scales, self.PAD: pad})

    def _decode(self, codes: Tensor, side: dict[str, Any]) -> Tensor:
        model: Any = self.model
        if not self.facts.side:
            return model.decode(codes[None, None], [None]).audio_values
        scales, pad = side[self.SCALES], side[self.PAD]
        frames, rest = divmod(codes.shape[1] + pad, max(1, len(scales)))
        most = codes.shape[1] if self._config.chunk_length is None else self._chunk_frames()
        if rest or not 0 <= pad < frames <= most:
            raise InputError(
                f"{self.facts.name} has {codes.shape[1]} frames of codes, but its side data speak "
                f"of {len(scales)} chunks of at most {most}, the last one {pad} short; keep side "
                "data with their ids"
            )
        filled = torch.nn.functional.pad(codes, (0, pad))
        chunks = filled.reshape(len(codes), len(scales), frames).transpose(0, 1)[:, None]
        device = codes.device
        values = [torch.tensor([[float(one)]], device=device) for one in scales]
        return model.decode(chunks, values, last_frame_pad_length=pad).audio_values


class MimiSound(PretrainedSound):
    """Mimi (arXiv 2410.00037): 12.5 frames a second at 24 kHz; the first codebook carries meaning,
    the others how it sounds."""

    def _name(self) -> str:
        return "mimi"

    def _most_books(self) -> int:
        return self._config.num_quantizers

    def _frame_rate(self) -> float:
        return float(self._config.frame_rate)

    def _encode(self, wave: Tensor) -> Coded:
        model: Any = self.model
        out = model.encode(wave, num_quantizers=self._books)
        return Coded(out.audio_codes[0].T.cpu().numpy())

    def _decode(self, codes: Tensor, side: dict[str, Any]) -> Tensor:
        model: Any = self.model
        return model.decode(codes[None]).audio_values


class DacSound(PretrainedSound):
    """The Descript codec (arXiv 2306.06546) at 16, 24 or 44.1 kHz.

    The library drops what does not fill a frame. Here sound is filled up with silence to whole
    hops, as its own feature extractor does; strides that are odd still give a few samples less.
    """

    USUAL = 32
    PADDING = "zeros to whole hops"

    def _name(self) -> str:
        return f"dac_{self._config.sampling_rate / 1000:g}khz"

    def _most_books(self) -> int:
        return self._config.n_codebooks

    def _hop(self) -> int:
        return int(np.prod(self._config.downsampling_ratios))

    def _frame_rate(self) -> float:
        return self._config.sampling_rate / self._hop()

    def _encode(self, wave: Tensor) -> Coded:
        model: Any = self.model
        filled = torch.nn.functional.pad(wave, (0, -wave.shape[-1] % self._hop()))
        out = model.encode(filled, n_quantizers=self._books)
        return Coded(out.audio_codes[0].T.cpu().numpy())

    def _decode(self, codes: Tensor, side: dict[str, Any]) -> Tensor:
        model: Any = self.model
        return model.decode(audio_codes=codes[None]).audio_values
