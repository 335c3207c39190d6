"""Stage D, first half, `train_codecs`: the speech codec learns to rebuild the narrator's mel.

The gate: ten times better than predicting the mean, codes in use, and words that survive.
Words are judged by the recogniser of `train_audio_encoder` on sound that went through the codec
and the vocoder, beside the same sentences as they were spoken.

With a share of sound events it is the stage `train_sound_codec`, whose codec the token space has:
the Talker speaks through one that knows nothing but speech. Events are then judged as well.
"""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from lumoomni.audits.speech import word_errors
from lumoomni.codecs.speech_rvq import SpeechCodec, SpeechCodecConfig
from lumoomni.codecs.text import TextCodec
from lumoomni.codecs.vocoder import vocode
from lumoomni.data.conversation import pad_mels
from lumoomni.data.sample import Source, SpeechItem, take
from lumoomni.data.sources import open_speech
from lumoomni.data.world.hearing import classify
from lumoomni.data.world.sounds import Sound, make_sound
from lumoomni.data.world.split import rng
from lumoomni.gates import Check, Metric, Report, bootstrap_ratio, exact, wilson
from lumoomni.infer.assemble import load_part, load_settings, save_part
from lumoomni.infer.listen import transcribe
from lumoomni.media.mel import MelConfig, log_mel
from lumoomni.model.audio import AudioTower
from lumoomni.pipeline import StageContext
from lumoomni.train.loop import LoopConfig, StepLoss, fit, site_of
from lumoomni.train.optim import OptimConfig

HARDEST = "buzz"
"""Its harmonics stand as close as the spectrum's picture can tell them apart."""


@dataclass(frozen=True, kw_only=True)
class TrainCodecsConfig:
    """`speech.n_mels`, `mel_mean` and `mel_std` are set from the shared mel and the data."""

    data: str = "world-narrator"
    sounds: float = 0.0
    """Share of training clips that are sound events of the micro-world."""
    part: str = "speech_codec"
    speech: SpeechCodecConfig
    crop: int = 128
    """Mel frames of each training clip."""
    loop: LoopConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval_items: int = 150
    min_gain: float = 10.0
    min_code_use: float = 0.5
    max_wer_loss: float = 0.03
    min_sounds: float = 0.9
    """Events that must be told from what is rebuilt, and nearly all from what was made."""


@dataclass(frozen=True, kw_only=True)
class MelBatch:
    """mels [B, M, n_mels] and their valid lengths [B]."""

    mels: Tensor
    lengths: Tensor


class CodecTask:
    """Mean squared error of the rebuilt log-mel, and the commitment of the encoder to its codes."""

    def __init__(
        self,
        codec: SpeechCodec,
        source: Source[SpeechItem],
        mel: MelConfig,
        config: TrainCodecsConfig,
        seed: int,
    ) -> None:
        self.modules: dict[str, nn.Module] = {config.part: codec}
        self._codec, self._source, self._mel, self._config = codec, source, mel, config
        self._seed = seed

    def batch(self, index: int) -> MelBatch:
        size = self._config.loop.batch_size
        crops = []
        for i in range(index * size, (index + 1) * size):
            mel = self._clip(i)
            spare = max(1, len(mel) - self._config.crop)
            start = int(rng(0, "crop", i).integers(spare))
            crops.append(mel[start : start + self._config.crop])
        mels, lengths = pad_mels(crops)
        return MelBatch(mels=mels, lengths=lengths)

    def _clip(self, index: int) -> Tensor:
        """Log-mel [M, n_mels] of an utterance, or of a sound."""
        sounds = self._config.sounds
        if sounds and rng(0, "sound or speech", index).random() < sounds:
            return samples_mel(self._sound(index).samples, self._mel)
        return item_mel(self._source.item("train", index), self._mel)

    def _sound(self, index: int) -> Sound:
        """A sound of the training split; of two, rather one with the event that is lost first."""
        first = make_sound(self._seed, "train", 2 * index)
        if HARDEST in first.events:
            return first
        second = make_sound(self._seed, "train", 2 * index + 1)
        return second if HARDEST in second.events else first

    def weight(self, batch: MelBatch) -> float:
        return float(batch.lengths.sum())

    def loss(self, batch: MelBatch) -> StepLoss:
        codec = self._codec
        rebuilt, quantised, _ = codec(batch.mels, batch.lengths)
        error = squared_error(rebuilt, batch.mels, batch.lengths).sum() / codec.config.mel_std**2
        error = error / batch.mels.shape[2]
        commitment = quantised.commitment * codec.config.stride
        total = error + codec.config.commitment * commitment
        return StepLoss(total, {"mse": float(error.detach())})


def item_mel(item: SpeechItem, config: MelConfig) -> Tensor:
    """Log-mel [M, n_mels] of an utterance."""
    return samples_mel(item.samples, config)


def samples_mel(samples: np.ndarray, config: MelConfig) -> Tensor:
    """Log-mel [M, n_mels] of float32 [T] at the mel's rate."""
    return log_mel(torch.from_numpy(samples)[None], config)[0]


def squared_error(rebuilt: Tensor, mels: Tensor, lengths: Tensor) -> Tensor:
    """Sum over valid frames and bins for each clip [B]."""
    valid = torch.arange(mels.shape[1], device=mels.device)[None] < lengths[:, None]
    return (((rebuilt.float() - mels) ** 2) * valid[..., None]).sum((1, 2))


def run(context: StageContext) -> Report:
    """Train, measure, save the codec under the name of its part."""
    config: TrainCodecsConfig = context.config
    settings = load_settings(context.parents["pretrain_text"])
    source = open_speech(config.data, context.seed)
    sample = torch.cat([item_mel(source.item("train", i), settings.mel) for i in range(64)])
    shape = replace(
        config.speech,
        n_mels=settings.mel.n_mels,
        mel_mean=round(float(sample.mean()), 3),
        mel_std=round(float(sample.std()), 3),
        mel_rate=settings.mel.rate / settings.mel.hop,
    )
    torch.manual_seed(context.seed)
    codec = SpeechCodec(shape)
    task = CodecTask(codec, source, settings.mel, config, context.seed)
    fit(task, config.loop, config.optim, site_of(context))
    save_part(context.out, config.part, codec)
    return measure(config, source, settings.mel, codec, context)


def measure(
    config: TrainCodecsConfig,
    source: Source[SpeechItem],
    mel: MelConfig,
    codec: SpeechCodec,
    context: StageContext,
) -> Report:
    """Gain over the mean predictor, code use, and word errors before and after."""
    items = take(source, "seen", config.eval_items)
    mels = [item_mel(item, mel) for item in items]
    mean = torch.cat(mels).mean(0)
    base, left, codes, rebuilt = [], [], [], []
    for one in mels:
        code = codec.encode(one[None])[0]
        back = codec.decode(code)[: len(one)]
        base.append(float(((one - mean) ** 2).sum()))
        left.append(float(((one - back) ** 2).sum()))
        codes.append(code)
        rebuilt.append(back)
    metrics: dict[str, Metric] = {"codec.gain": bootstrap_ratio(base, left)}
    flat = torch.cat(codes)
    for book in range(codec.config.codebooks):
        used = len(flat[:, book].unique()) / codec.config.codebook_size
        metrics[f"codec.code_use.{book}"] = exact(used, n=len(flat))
    tower = load_part(context.parents["train_audio_encoder"], "audio")
    text = TextCodec.load(context.parents["pretrain_text"].file("tokenizer.json"))
    assert isinstance(tower, AudioTower)
    texts = [item.text for item in items]
    sounds = [np.asarray(vocode(one, mel), dtype=np.float32) for one in rebuilt]
    before = word_errors(texts, transcribe(tower, text, mel, [item.samples for item in items]))
    after = word_errors(texts, transcribe(tower, text, mel, sounds))
    metrics["codec.wer_original"] = before
    metrics["codec.wer_resynthesis"] = after
    metrics["codec.wer_loss"] = exact(after.value - before.value, n=before.n)
    if config.sounds:
        metrics |= hear_events(codec, mel, config.eval_items, context.seed)
    return Report(metrics=metrics)


def hear_events(codec: SpeechCodec, mel: MelConfig, count: int, seed: int) -> dict[str, Metric]:
    """Shares of held-out sounds whose events are all told rightly, before and after coding."""
    right = {"original": 0, "rebuilt": 0}
    for index in range(count):
        sound = make_sound(seed, "seen", index)
        log_mels = samples_mel(sound.samples, mel)
        back = codec.decode(codec.encode(log_mels[None])[0])[: len(log_mels)]
        right["original"] += classify(sound.samples) == sound.events
        right["rebuilt"] += classify(np.asarray(vocode(back, mel))) == sound.events
    return {f"codec.events_{name}": wilson(hits, count) for name, hits in right.items()}


def checks(config: TrainCodecsConfig) -> tuple[Check, ...]:
    """The gate."""
    check = partial(Check, min_n=min(100, config.eval_items))
    found = [
        check(
            metric="codec.gain",
            op=">=",
            threshold=config.min_gain,
            why="squared error of the mean predictor over the codec's: it must carry the sound",
        ),
        check(
            metric="codec.wer_loss",
            op="<=",
            threshold=config.max_wer_loss,
            why="words must survive coding and the vocoder",
        ),
    ]
    if config.sounds:
        found += [
            check(
                metric="codec.events_original",
                op=">=",
                threshold=0.99,
                why="a judge that mishears sounds cannot judge a codec",
            ),
            check(
                metric="codec.events_rebuilt",
                op=">=",
                threshold=config.min_sounds,
                why="what a sound is must survive coding and the vocoder",
            ),
        ]
    for book in range(config.speech.codebooks):
        found.append(
            check(
                metric=f"codec.code_use.{book}",
                op=">=",
                threshold=config.min_code_use,
                why="a codebook that is not used was not learned",
            )
        )
    return tuple(found)
