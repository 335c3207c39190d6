"""Speech codec: log-mel frames to two codes per frame by residual vector quantisation, and back.

Knows: how to squeeze `stride` mel frames into Q codes and rebuild them; how codebooks learn.
Does not know: words, voices, or how a waveform is made from mel (codecs/vocoder.py does).
Costs: nano 0.3 M parameters around Q x 128 codes; 50 frames a second are 700 bit/s.

Codebooks learn by exponential moving averages with codes that fall out of use restarted from live
data (arXiv 1711.00937, 2107.03312); gradients pass straight through, and a commitment term keeps
the encoder near its codes. Decoding sees a fixed window around each chunk of frames counted from
the start of the utterance, so a stream and a whole file give the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.codecs.company import product
from lumoomni.codecs.quantiser import Quantised, ResidualQuantiser, clear_nearest, margins, nearest
from lumoomni.shapes import ROWS, round_up


@dataclass(frozen=True, kw_only=True)
class SpeechCodecConfig:
    """`stride` mel frames become one code frame; `context` code frames reach into a decoded one."""

    n_mels: int
    stride: int = 2
    width: int = 128
    code_width: int = 64
    codebooks: int = 2
    codebook_size: int = 128
    depth: int = 2
    mel_mean: float = -1.0
    mel_std: float = 2.3
    decay: float = 0.97
    restart_below: float = 0.1
    """A code used for fewer vectors than this a batch (moving average) is restarted."""
    commitment: float = 0.25
    mel_rate: float = 100.0

    def __post_init__(self) -> None:
        if self.stride < 1 or self.codebooks < 1 or self.depth < 1:
            raise ValueError(
                f"stride, codebooks and depth must be at least 1, got {self.stride}, "
                f"{self.codebooks}, {self.depth}"
            )

    @property
    def frame_rate(self) -> float:
        """Code frames a second."""
        return self.mel_rate / self.stride

    @property
    def context(self) -> int:
        """Code frames on each side that a decoded frame depends on."""
        return self.depth + 1


class Residual(nn.Module):
    """x + conv(gelu(conv(x))) over [B, D, F]; reaches one frame to each side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, 3, padding=1)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(F.gelu(self.mix(F.gelu(x))))


class SpeechCodec(nn.Module):
    """log-mel [B, M, n_mels] <-> codes [B, F, Q], F = ceil(M / stride)."""

    def __init__(self, config: SpeechCodecConfig) -> None:
        super().__init__()
        self.config = config
        width, folded = config.width, config.n_mels * config.stride
        self.encode_in = nn.Conv1d(folded, width, 3, padding=1)
        self.encode_mid = nn.Sequential(*(Residual(width) for _ in range(config.depth)))
        self.encode_out = nn.Conv1d(width, config.code_width, 1)
        self.quantiser = ResidualQuantiser(config)
        self.decode_in = nn.Conv1d(config.code_width, width, 3, padding=1)
        self.decode_mid = nn.Sequential(*(Residual(width) for _ in range(config.depth)))
        self.decode_out = nn.Conv1d(width, folded, 1)

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Quantised, Tensor]:
        """-> (rebuilt mel [B, M, n_mels], Quantised, code mask [B, F]) for training."""
        folded, mask = self._fold(mel, lengths)
        quantised = self.quantiser(self._latents(folded, mask), mask)
        rebuilt = self._rebuild(quantised.vectors * mask[..., None], mask)
        return rebuilt[:, : mel.shape[1]], quantised, mask

    @torch.no_grad()
    def encode(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """mel [B, M, n_mels] -> codes [B, F, Q] in fp32; lengths [B] are valid mel frames."""
        if lengths is None:
            lengths = torch.full((mel.shape[0],), mel.shape[1], device=mel.device)
        with torch.autocast(mel.device.type, enabled=False):
            folded, mask = self._fold(mel.float(), lengths)
            vectors = self._latents(folded, mask)
            codes = []
            for book in self.quantiser.codebooks:
                index = nearest(vectors, book)
                vectors = vectors - book[index]
                codes.append(index)
        return torch.stack(codes, -1)

    @torch.no_grad()
    def encode_clear(self, mels: Sequence[Tensor], near: float) -> list[tuple[Tensor, bool]]:
        """`encode` of each mel [M, n_mels], all in one row, and whether its codes [F, Q] would be
        the same if each of its vectors were moved by `near` of its longest one."""
        with torch.autocast(mels[0].device.type, enabled=False):
            row, mask, places = self._packed(mels)
            left = self._among(row, mask)
            length = left.norm(dim=-1)
            reach = torch.zeros_like(length)
            for place in places:
                reach[place] = near * length[place].amax()
            codes, sure = [], torch.ones_like(mask)
            for book in self.quantiser.codebooks:
                index, clear = clear_nearest(left, book, reach)
                left, sure = left - book[index], sure & clear
                codes.append(index)
        all_codes = torch.stack(codes, -1)
        return [(all_codes[i], bool(sure[i].all())) for i in places]

    @torch.no_grad()
    def margins(self, mel: Tensor) -> Tensor:
        """mel [B, M, n_mels] -> [B, F, Q]: how far the next code was behind the chosen one."""
        lengths = torch.full((mel.shape[0],), mel.shape[1], device=mel.device)
        with torch.autocast(mel.device.type, enabled=False):
            folded, mask = self._fold(mel.float(), lengths)
            return margins(self._latents(folded, mask), self.quantiser.codebooks)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [F, Q] -> log-mel [F * stride, n_mels]; the same bits as any stream of it."""
        stream = CodecStream(self)
        return torch.cat([stream.push(codes), stream.flush()])

    def _fold(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        stride = self.config.stride
        frames = -(-mel.shape[1] // stride)
        x = (mel - self.config.mel_mean) / self.config.mel_std
        # Missing mel frames repeat nothing: they are zero, the mean of the data, in every batch.
        valid = torch.arange(mel.shape[1], device=mel.device)[None] < lengths[:, None]
        x = F.pad(x * valid[..., None], (0, 0, 0, frames * stride - mel.shape[1]))
        counts = (lengths + stride - 1) // stride
        mask = torch.arange(frames, device=mel.device)[None] < counts[:, None]
        return x.reshape(len(x), frames, -1), mask

    def _packed(self, mels: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[slice]]:
        """`_fold` of clips in one row [F, stride * n_mels] with a frame of nothing between them,
        which is what a convolution finds at the ends of a lone one; mask [F], and where each clip
        is. Rows have few lengths (shapes.py)."""
        stride, places, start = self.config.stride, [], 0
        for mel in mels:
            places.append(slice(start, start - (-len(mel) // stride)))
            start = places[-1].stop + 1
        frames = round_up(start - 1, ROWS)
        row = mels[0].new_zeros(frames, stride * self.config.n_mels, dtype=torch.float32)
        mask = torch.zeros(frames, dtype=torch.bool, device=row.device)
        for mel, place in zip(mels, places, strict=True):
            scaled = (mel.float() - self.config.mel_mean) / self.config.mel_std
            row[place].view(-1, self.config.n_mels)[: len(mel)] = scaled
            mask[place] = True
        return row, mask, places

    def _among(self, row: Tensor, mask: Tensor) -> Tensor:
        """`_latents` of a row [F, stride * n_mels] -> [F, code_width], but for rounding."""
        keep = mask[:, None]
        x = _slide(row, self.encode_in) * keep
        for block in self.encode_mid:
            assert isinstance(block, Residual)
            x = (x + _slide(F.gelu(_slide(F.gelu(x), block.mix)), block.out)) * keep
        return _slide(x, self.encode_out)

    def _latents(self, folded: Tensor, mask: Tensor) -> Tensor:
        keep = mask[:, None, :]
        x = self.encode_in(folded.transpose(1, 2)) * keep
        for block in self.encode_mid:
            x = block(x) * keep
        return self.encode_out(x).transpose(1, 2).float()

    def _rebuild(self, vectors: Tensor, mask: Tensor) -> Tensor:
        keep = mask[:, None, :]
        x = self.decode_in(vectors.transpose(1, 2)) * keep
        for block in self.decode_mid:
            x = block(x) * keep
        x = self.decode_out(x).transpose(1, 2)
        x = x.reshape(len(x), -1, self.config.n_mels)
        return x * self.config.mel_std + self.config.mel_mean


def _slide(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """A convolution of one frame or three over x [F, D] -> [F, C], as one product."""
    reach = conv.padding[0]
    assert isinstance(reach, int)
    frames, width = x.shape
    seen = F.pad(x, (0, 0, reach, reach)).as_strided((frames, (2 * reach + 1) * width), (width, 1))
    return product(seen, conv.weight.transpose(1, 2).flatten(1), conv.bias)


class CodecStream:
    """Decodes codes as they arrive; the result does not depend on how they were cut."""

    CHUNK = 4

    def __init__(self, codec: SpeechCodec) -> None:
        self._codec = codec
        config = codec.config
        self._device = codec.quantiser.codebooks.device
        self._codes = torch.zeros(0, config.codebooks, dtype=torch.long, device=self._device)
        self._done = 0

    def push(self, codes: Tensor) -> Tensor:
        """codes [F', Q] -> the log-mel [M', n_mels] that can be settled now."""
        self._codes = torch.cat([self._codes, codes.to(self._device)])
        out, context = [], self._codec.config.context
        while self._done + self.CHUNK + context <= len(self._codes):
            out.append(self._window(self._done + self.CHUNK))
        return self._join(out)

    def flush(self) -> Tensor:
        """The rest; call once, at the end."""
        out = []
        while self._done < len(self._codes):
            out.append(self._window(min(self._done + self.CHUNK, len(self._codes))))
        return self._join(out)

    def _window(self, stop: int) -> Tensor:
        """Decode frames [done, stop) inside a window of one fixed shape, so the bits are fixed."""
        config = self._codec.config
        first = self._done - config.context
        last = first + self.CHUNK + 2 * config.context
        index = torch.arange(first, last, device=self._device)
        mask = (index >= 0) & (index < len(self._codes))
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            codes = self._codes[index.clamp(0, len(self._codes) - 1)]
            vectors = self._codec.quantiser.lookup(codes[None]) * mask[None, :, None]
            mel = self._codec._rebuild(vectors, mask[None])[0]
        begin = config.context * config.stride
        size = (stop - self._done) * config.stride
        self._done = stop
        return mel[begin : begin + size]

    def _join(self, chunks: list[Tensor]) -> Tensor:
        if chunks:
            return torch.cat(chunks)
        return torch.zeros(0, self._codec.config.n_mels, device=self._device)
