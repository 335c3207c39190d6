"""Small codecs with a token space around them, and faults to plant in them; no model is trained."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lumoomni.audits.token_inputs import HARD_TEXTS, Inputs
from lumoomni.audits.token_process import Elsewhere
from lumoomni.audits.tokens import TokenAudit, TokenAuditConfig, audit, checks
from lumoomni.codecs.facts import CodecFacts, Coded, Kind, MediaCodec
from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.data.world.source import WorldPictures, WorldSpeech
from lumoomni.gates import Verdict, judge
from lumoomni.media.audio import Audio
from lumoomni.media.image import resize
from lumoomni.media.mel import log_mel
from lumoomni.uti.interface import UTI
from lumoomni.uti.space import new_space
from tests.tiny import MEL, modules, text_codec

RATE, HOP, LEVELS = 8000, 2, 16
SIDE, CELL = 64, 8
TEXT = text_codec()


class StepCodec:
    """Sound in steps: a coarse level and a fine one code the mean of two samples."""

    def __init__(self) -> None:
        self.facts = CodecFacts(
            kind="audio",
            name="steps",
            weights="a" * 64,
            codebooks=2,
            codebook_size=LEVELS,
            frame_rate=RATE / HOP,
            sample_rate=RATE,
        )

    def encode(self, samples: np.ndarray) -> Coded:
        filled = np.pad(samples, (0, -len(samples) % HOP)).reshape(-1, HOP).mean(1)
        level = np.clip(np.round((filled + 1) / 2 * (LEVELS**2 - 1)), 0, LEVELS**2 - 1)
        return Coded(np.stack(np.divmod(level.astype(np.int64), LEVELS), 1))

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        return [self.encode(one) for one in media]

    def decode(self, coded: Coded) -> Audio:
        self.facts.check(coded)
        level = coded.codes[:, 0] * LEVELS + coded.codes[:, 1]
        wave = (level / (LEVELS**2 - 1) * 2 - 1).repeat(HOP)
        return Audio(wave.astype(np.float32), RATE)

    def margins(self, samples: np.ndarray) -> np.ndarray:
        return np.full((-(-len(samples) // HOP), 2), 0.25)


class CellCodec:
    """Pictures as cells of 8 x 8 pixels, each the nearest of 64 colours."""

    def __init__(self) -> None:
        self.facts = CodecFacts(
            kind="image",
            name="cells",
            weights="b" * 64,
            codebooks=1,
            codebook_size=64,
            tokens=(SIDE // CELL) ** 2,
            image_size=SIDE,
        )

    def encode(self, picture: np.ndarray) -> Coded:
        grid = resize(picture, SIDE).reshape(SIDE // CELL, CELL, SIDE // CELL, CELL, 3)
        quarters = grid.mean((1, 3)).astype(np.int64) // 64
        return Coded((quarters @ np.array([16, 4, 1])).reshape(-1, 1))

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Coded]:
        return [self.encode(one) for one in media]

    def decode(self, coded: Coded) -> np.ndarray:
        self.facts.check(coded)
        codes = coded.codes.reshape(SIDE // CELL, SIDE // CELL)
        colours = np.stack([codes // 16, codes // 4 % 4, codes % 4], -1) * 64 + 32
        return colours.repeat(CELL, 0).repeat(CELL, 1).astype(np.uint8)


def space_of(*codecs: MediaCodec) -> UTI:
    """A space of these codecs."""
    space = new_space(TEXT.vocab_size, TEXT.hash, [codec.facts for codec in codecs])
    by_kind: dict[Kind, MediaCodec] = {codec.facts.kind: codec for codec in codecs}
    return UTI(space, TEXT, by_kind)


def inputs(pictures: int = 4, sounds: int = 3) -> Inputs:
    """Some of the micro-world's."""
    shown = [WorldPictures(0, SIDE).item("unseen", i).image for i in range(pictures)]
    said = [WorldSpeech(0, narrator=True).item("seen", i).samples for i in range(sounds)]
    return Inputs(
        texts=HARD_TEXTS, pictures=tuple(shown), sounds=tuple(Audio(one, 16000) for one in said)
    )


def fresh(*codecs: MediaCodec) -> Any:
    """What encodes elsewhere: codecs of its own instead of another process."""

    def elsewhere(media: Any, texts: Sequence[str]) -> Elsewhere:
        by_kind = {codec.facts.kind: codec for codec in codecs}
        return Elsewhere(
            coded={kind: [by_kind[kind].encode(one) for one in media[kind]] for kind in media},
            texts=[TEXT.encode(one) for one in texts],
            facts={kind: codec.facts.meaning() for kind, codec in by_kind.items()},
        )

    return elsewhere


def judged(
    uti: UTI, given: Inputs | None = None, elsewhere: Any = None
) -> tuple[TokenAudit, Verdict]:
    """The audit of a space, and the verdict on it."""
    found = audit(uti, given or inputs(), elsewhere or fresh(StepCodec(), CellCodec()))
    return found, judge(found.report, checks(uti.space, TokenAuditConfig()))


def failed(verdict: Verdict) -> set[str]:
    """The metrics of the checks that did not hold."""
    return {result.check.metric for result in verdict.results if not result.passed}


def fitted_codec() -> SpeechCodec:
    """The tiny speech codec with the main components of some speech as its weights: no training,
    and still it carries what is said."""
    codec = modules(TEXT)["speech_codec"]
    assert isinstance(codec, SpeechCodec)
    width, stride = codec.config.code_width, codec.config.stride
    said = [WorldSpeech(0, narrator=True).item("train", i).samples for i in range(12)]
    mels = torch.cat([log_mel(torch.from_numpy(one)[None], MEL)[0] for one in said])
    mels = mels[: len(mels) // stride * stride]
    codec.config = replace(codec.config, mel_mean=float(mels.mean()), mel_std=float(mels.std()))
    with torch.no_grad():
        for one in codec.parameters():
            one.zero_()
        scaled = (mels - mels.mean()) / mels.std()
        rows = scaled.reshape(-1, stride * codec.config.n_mels)
        main = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh[:width]
        codec.encode_in.weight[:width, :, 1] = main
        codec.encode_in.bias[:width] = -main @ rows.mean(0)
        codec.encode_out.weight[:, :width, 0] = torch.eye(width)
        codec.decode_in.weight[:width, :, 1] = torch.eye(width)
        codec.decode_out.weight[:, :width, 0] = main.T
        codec.decode_out.bias.copy_(rows.mean(0))
        codec.train()
        vectors = (rows - rows.mean(0)) @ main.T
        codec.quantiser(vectors[None], torch.ones(1, len(vectors), dtype=torch.bool))
    return codec.eval()
