"""Stage B, `train_audio_encoder`: AuT-Tiny learns to hear by subword CTC.

Where word times are known (synthesised speech), two helpers make it quick (LOG.md): a falling loss
says in which frame CTC should name each word, and a second head, thrown away afterwards, says for
every frame which word is being spoken.
The gate: word error rates on unheard sentences, in heard and in unheard voices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.audits.speech import word_errors
from lumoomni.codecs.text import TextCodec
from lumoomni.data.align import symbol_frames, token_starts
from lumoomni.data.conversation import audio_positions, pad_mels
from lumoomni.data.grouping import LengthGroups
from lumoomni.data.sample import Source, SpeechItem, take
from lumoomni.data.sources import no_longer, open_speech
from lumoomni.data.world.language import normalise
from lumoomni.data.world.speech import WordTime
from lumoomni.data.world.split import rng
from lumoomni.gates import Check, Metric, Report, wilson
from lumoomni.infer.assemble import load_settings, save_part
from lumoomni.infer.listen import transcribe
from lumoomni.media.mel import MelConfig, log_mel
from lumoomni.model.audio import DOWNSAMPLE, AudioTower, AudioTowerConfig, ctc_needs
from lumoomni.pipeline import StageContext
from lumoomni.train.loop import LoopConfig, StepLoss, fit, site_of
from lumoomni.train.optim import OptimConfig

FEATURE_RATE = 12.5


@dataclass(frozen=True, kw_only=True)
class TrainAudioEncoderConfig:
    """`audio.symbols` and `audio.n_mels` are set from the tokenizer and the shared mel."""

    data: str = "world"
    audio: AudioTowerConfig
    loop: LoopConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    align_weight: float = 1.0
    align_until: float = 0.6
    """Share of the run over which the alignment loss falls to zero."""
    frame_weight: float = 0.3
    """Weight of naming the word of every frame, for each symbol's share of the loss."""
    masks: int = 2
    """Masked stretches of time and of frequency in training (SpecAugment, arXiv 1904.08779)."""
    eval_items: int = 200
    max_wer_seen: float = 0.05
    max_wer_unheard: float = 0.10


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """mel [M, n_mels], CTC symbols, for each symbol the frame that names it (-1 unknown), and for
    each frame the symbol that is spoken in it (-100 unknown)."""

    mel: Tensor
    symbols: tuple[int, ...]
    frames: tuple[int, ...]
    owners: np.ndarray

    def __len__(self) -> int:
        return len(self.mel)


@dataclass(frozen=True, kw_only=True)
class SpeechBatch:
    """mels [B, M, n_mels], mel_lengths, target_lengths [B], flat targets, named, owners [B, F]."""

    mels: Tensor
    mel_lengths: Tensor
    targets: Tensor
    target_lengths: Tensor
    named: Tensor
    owners: Tensor
    progress: float


def symbols_of(codec: TextCodec, text: str) -> tuple[str, list[int]]:
    """The recogniser's target: normalised text with a leading space, and its ids."""
    spelled = " " + normalise(text)
    return spelled, codec.encode(spelled)


def utterance(codec: TextCodec, mel_config: MelConfig, item: SpeechItem) -> Utterance:
    """Mel, symbols and the frames in which they end."""
    mel = log_mel(torch.from_numpy(item.samples)[None], mel_config)[0]
    spelled, symbols = symbols_of(codec, item.text)
    frames = [-1] * len(symbols)
    owners = np.full(audio_positions(len(mel)), -100)
    spoken_words = spelled.split()
    if item.words is not None and len(spoken_words) == len(item.words):
        # Word k of the normalised text is word k that was spoken, at its own place in the string.
        times, place = [], 0
        for word, time in zip(spoken_words, item.words, strict=True):
            place = spelled.index(word, place)
            times.append(WordTime(place, place + len(word), time.start_s, time.end_s))
            place += len(word)
        starts = token_starts(codec.offsets(spelled), [True] * len(symbols), times)
        frames = symbol_frames(
            starts,
            frames=audio_positions(len(mel)),
            rate=FEATURE_RATE,
            end_s=item.words[-1].end_s,
        )
        for symbol, start in zip(symbols, starts, strict=True):
            if start is not None:
                owners[int(start * FEATURE_RATE) :] = symbol
    return Utterance(mel=mel, symbols=tuple(symbols), frames=tuple(frames), owners=owners)


class CtcTask:
    """CTC over subwords, with the alignment helper."""

    echoes = True

    def __init__(
        self, tower: AudioTower, groups: LengthGroups[Utterance], config: TrainAudioEncoderConfig
    ) -> None:
        self._frame_head = nn.Linear(tower.config.encoder.width, tower.config.symbols)
        self.modules: dict[str, nn.Module] = {"audio": tower, "frame_head": self._frame_head}
        self._tower, self._groups, self._config = tower, groups, config

    def batch(self, index: int) -> SpeechBatch:
        items = self._groups.batch(index)
        mels, lengths = pad_mels([item.mel for item in items])
        mels = mask_stretches(mels, lengths, self._config.masks, index)
        named = torch.full((len(items), audio_positions(mels.shape[1])), -100)
        owners = torch.full_like(named, -100)
        for row, item in enumerate(items):
            owners[row, : len(item.owners)] = torch.from_numpy(item.owners)
            for symbol, frame in zip(item.symbols, item.frames, strict=True):
                if frame >= 0:
                    named[row, frame] = symbol + 1
        config = self._config
        return SpeechBatch(
            mels=mels,
            mel_lengths=lengths,
            targets=torch.tensor([s + 1 for item in items for s in item.symbols]),
            target_lengths=torch.tensor([len(item.symbols) for item in items]),
            named=named,
            owners=owners,
            progress=index / (config.loop.steps * config.loop.accumulate),
        )

    def weight(self, batch: SpeechBatch) -> float:
        return float(batch.target_lengths.sum())

    def loss(self, batch: SpeechBatch) -> StepLoss:
        out = self._tower(batch.mels, batch.mel_lengths)
        scores = self._tower.log_probs(out.features)
        ctc = F.ctc_loss(
            scores.transpose(0, 1),
            batch.targets,
            out.lengths,
            batch.target_lengths,
            reduction="sum",
            zero_infinity=True,
        )
        total, parts = ctc, {"ctc": float(ctc.detach())}
        left = max(0.0, 1.0 - batch.progress / max(self._config.align_until, 1e-9))
        if left > 0 and bool((batch.named >= 0).any()):
            align = F.nll_loss(scores.flatten(0, 1), batch.named.flatten(), reduction="sum")
            total = total + self._config.align_weight * left * align
            parts["align"] = float(align.detach())
        if self._config.frame_weight > 0 and bool((batch.owners >= 0).any()):
            guess = self._frame_head(out.features).float().flatten(0, 1)
            frames = F.cross_entropy(guess, batch.owners.flatten(), reduction="sum")
            total = total + self._config.frame_weight * frames
            parts["frames"] = float(frames.detach())
        return StepLoss(total, parts)


def mask_stretches(mels: Tensor, lengths: Tensor, count: int, key: int) -> Tensor:
    """SpecAugment: `count` stretches of time and of bins set to the clip's mean; repeatable."""
    stream = rng(0, "mask", key)
    mels = mels.clone()
    for row, length in enumerate(lengths.tolist()):
        mean = mels[row, :length].mean()
        for _ in range(count):
            start, size = int(stream.integers(length)), int(stream.integers(10))
            mels[row, start : min(start + size, length)] = mean
            bins = mels.shape[2]
            start, size = int(stream.integers(bins)), int(stream.integers(bins // 7))
            mels[row, :length, start : start + size] = mean
    return mels


def run(context: StageContext) -> Report:
    """Train, measure, save `audio`."""
    from dataclasses import replace

    config: TrainAudioEncoderConfig = context.config
    text = context.parents["pretrain_text"]
    codec = TextCodec.load(text.file("tokenizer.json"))
    mel = load_settings(text).mel
    most, name = config.audio.max_frames, f"{context.name}.audio.max_frames"
    fits = no_longer(most * DOWNSAMPLE * mel.hop / mel.rate, f"{name} {most}")
    source = open_speech(config.data, context.seed, fits=fits)
    torch.manual_seed(context.seed)
    tower = AudioTower(replace(config.audio, symbols=codec.vocab_size, n_mels=mel.n_mels))
    groups = LengthGroups(
        lambda i: utterance(codec, mel, source.item("train", i)),
        batch_size=config.loop.batch_size,
        seed=context.seed,
        parts=config.loop.accumulate,
        echo=config.loop.echo,
    )
    fit(CtcTask(tower, groups, config), config.loop, config.optim, site_of(context))
    save_part(context.out, "audio", tower)
    return measure(config, source, codec, mel, tower)


def measure(
    config: TrainAudioEncoderConfig,
    source: Source[SpeechItem],
    codec: TextCodec,
    mel: MelConfig,
    tower: AudioTower,
) -> Report:
    """Word error rates on unheard sentences by kind of voice, and how much CTC could not teach."""
    metrics: dict[str, Metric] = {}
    groups = {"seen": "hearing.wer"}
    if config.data == "world":
        groups |= {"unseen": "hearing.wer_unheard_voices", "other": "hearing.wer_other_family"}
    for split, name in groups.items():
        items = take(source, split, config.eval_items)
        heard = transcribe_items(tower, codec, mel, items)
        metrics[name] = word_errors([item.text for item in items], heard)
    train = take(source, "train", config.eval_items)
    stuck = [not feasible(codec, mel, item) for item in train]
    metrics["hearing.ctc_infeasible"] = wilson(sum(stuck), len(stuck))
    return Report(metrics=metrics)


def transcribe_items(
    tower: AudioTower, codec: TextCodec, mel: MelConfig, items: Sequence[SpeechItem]
) -> list[str]:
    """What the recogniser hears, in batches."""
    out: list[str] = []
    for first in range(0, len(items), 32):
        samples: list[np.ndarray] = [item.samples for item in items[first : first + 32]]
        out += transcribe(tower, codec, mel, samples)
    return out


def feasible(codec: TextCodec, mel: MelConfig, item: SpeechItem) -> bool:
    """Can CTC spell this text in the frames that the clip has?"""
    frames = audio_positions(-(-len(item.samples) // mel.hop))
    return ctc_needs(symbols_of(codec, item.text)[1]) <= frames


def checks(config: TrainAudioEncoderConfig) -> tuple[Check, ...]:
    """The gate."""
    check = partial(Check, op="<=", min_n=min(100, config.eval_items))
    found = [
        check(
            metric="hearing.wer",
            threshold=config.max_wer_seen,
            why="unheard sentences must be understood",
        ),
        check(
            metric="hearing.ctc_infeasible",
            threshold=0.01,
            why="an utterance with more symbols than frames teaches nothing, silently",
        ),
    ]
    if config.data == "world":
        found.append(
            check(
                metric="hearing.wer_unheard_voices",
                threshold=config.max_wer_unheard,
                why="new voices must be understood",
            )
        )
    return tuple(found)
