"""Stage D, second half, `train_talker`: the Talker learns to say replies in the narrator's voice.

It hears nothing: it reads the Thinker's states and the reply's embeddings, and predicts speech
codes and when to go on to the next word. The gate: what it says is understood, is the right text
and not another one, and it stops by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from lumoomni.audits.speech import derange, word_errors
from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.codecs.text import TextCodec
from lumoomni.codecs.vocoder import vocode
from lumoomni.data.align import frame_owners
from lumoomni.data.grouping import LengthGroups
from lumoomni.data.sample import Source, SpeechItem, take
from lumoomni.data.sources import Fits, no_longer, open_speech
from lumoomni.errors import InputError
from lumoomni.gates import Check, Report, wilson
from lumoomni.infer.assemble import ModelSettings, load_part, load_settings, save_part
from lumoomni.infer.listen import transcribe, word_times
from lumoomni.infer.speech import ReplyStates, reply_states, talk
from lumoomni.media.audio import Audio, save_wav
from lumoomni.model.audio import DOWNSAMPLE, AudioTower
from lumoomni.model.talker import Script, Talker, TalkerConfig
from lumoomni.model.thinker import Thinker
from lumoomni.pipeline import StageContext
from lumoomni.shapes import POSITIONS, fill_up
from lumoomni.stages.train_codecs import item_mel
from lumoomni.train.freeze import freeze
from lumoomni.train.loop import LoopConfig, StepLoss, fit, site_of
from lumoomni.train.optim import OptimConfig
from lumoomni.uti.sequence import SequenceBuilder


@dataclass(frozen=True, kw_only=True)
class TrainTalkerConfig:
    """`talker.source_width` and the codebooks are set from the Thinker and the codec."""

    data: str = "world-narrator"
    talker: TalkerConfig
    loop: LoopConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    advance_weight: float = 1.0
    eval_items: int = 120
    max_wer: float = 0.10
    min_wer_wrong: float = 0.50
    max_unalignable: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Line:
    """One sentence to learn: codes [F, Q], owner and progress int64[F], its reply states."""

    codes: Tensor
    owner: Tensor
    progress: Tensor
    states: ReplyStates

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True, kw_only=True)
class TalkerBatch:
    """A script and its codes [B, F, Q], lengths [B] in frames."""

    script: Script
    codes: Tensor
    lengths: Tensor


@dataclass(frozen=True, kw_only=True)
class Studio:
    """The frozen parts around the Talker; the recogniser aligns speech without word times."""

    thinker: Thinker
    tower: AudioTower
    text_codec: TextCodec
    speech_codec: SpeechCodec
    settings: ModelSettings


def alignment(studio: Studio, item: SpeechItem, states: ReplyStates, codes: Tensor) -> Line | None:
    """Codes with their owners; None when the utterance has no usable word times."""
    words = item.words
    if words is None:
        mel = studio.settings.mel
        words = word_times(studio.tower, studio.text_codec, mel, item.text, item.samples)
    found = frame_owners(
        studio.text_codec.offsets(item.text),
        states.spoken.tolist(),
        words or (),
        frames=len(codes),
        rate=studio.speech_codec.config.frame_rate,
    )
    if found is None:
        return None
    owner, progress = torch.from_numpy(found.owner), torch.from_numpy(found.progress)
    return Line(codes=codes, owner=owner, progress=progress, states=states)


def lines_of(studio: Studio, items: Sequence[SpeechItem]) -> list[Line | None]:
    """Encode and align a group of utterances; the Thinker runs once over all of them."""
    mel = studio.settings.mel
    states = reply_states(
        studio.thinker, studio.text_codec, studio.settings.template, [i.text for i in items]
    )
    out = []
    for item, state in zip(items, states, strict=True):
        codes = studio.speech_codec.encode(item_mel(item, mel)[None])[0]
        out.append(alignment(studio, item, state, codes))
    return out


class TalkerTask:
    """Teacher-forced codes and advances over aligned utterances."""

    echoes = True

    def __init__(
        self, talker: Talker, studio: Studio, source: Source[SpeechItem], config: TrainTalkerConfig
    ) -> None:
        self.modules: dict[str, nn.Module] = {"talker": talker}
        self._talker, self._studio, self._source, self._config = talker, studio, source, config
        self._groups = LengthGroups(
            self._line,
            make_all=self._lines,
            batch_size=config.loop.batch_size,
            parts=config.loop.accumulate,
            echo=config.loop.echo,
        )

    def _lines(self, indices: Sequence[int]) -> list[Line]:
        items = [self._source.item("train", index) for index in indices]
        made = zip(indices, lines_of(self._studio, items), strict=True)
        return [self._line(index, 1) if line is None else line for index, line in made]

    def _line(self, index: int, first: int = 0) -> Line:
        # An utterance without alignment gives its place to the next one; `measure` counts them.
        for offset in range(first, 50):
            item = self._source.item("train", index + offset * 1_000_003)
            line = lines_of(self._studio, [item])[0]
            if line is not None:
                return line
        raise InputError("fifty utterances in a row have no usable word times; run lumo data check")

    def batch(self, index: int) -> TalkerBatch:
        return talker_batch(self._groups.batch(index))

    def weight(self, batch: TalkerBatch) -> float:
        return float(batch.lengths.sum())

    def loss(self, batch: TalkerBatch) -> StepLoss:
        result = self._talker.loss(batch.script, batch.codes, batch.lengths)
        total = result.codes + self._config.advance_weight * result.advance
        parts = {"codes": float(result.codes.detach()), "advance": float(result.advance.detach())}
        return StepLoss(total, parts)


def talker_batch(lines: Sequence[Line]) -> TalkerBatch:
    """Right-pad lines into one batch; tokens and frames are multiples of `POSITIONS`."""

    def pad(rows: Sequence[Tensor]) -> Tensor:
        padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        return fill_up(padded, 1, POSITIONS)

    return TalkerBatch(
        script=Script(
            hidden=pad([line.states.hidden for line in lines]),
            embeds=pad([line.states.embeds for line in lines]),
            owner=pad([line.owner for line in lines]),
            progress=pad([line.progress for line in lines]),
        ),
        codes=pad([line.codes for line in lines]),
        lengths=torch.tensor([len(line) for line in lines]),
    )


def run(context: StageContext) -> Report:
    """Train, measure, save `talker`."""
    from dataclasses import replace

    config: TrainTalkerConfig = context.config
    text = context.parents["pretrain_text"]
    thinker = load_part(text, "thinker")
    codec = load_part(context.parents["train_codecs"], "speech_codec")
    tower = load_part(context.parents["train_audio_encoder"], "audio")
    assert isinstance(thinker, Thinker) and isinstance(codec, SpeechCodec)
    assert isinstance(tower, AudioTower)
    studio = Studio(
        thinker=freeze(thinker),  # type: ignore[arg-type]
        tower=freeze(tower),  # type: ignore[arg-type]
        text_codec=TextCodec.load(text.file("tokenizer.json")),
        speech_codec=freeze(codec),  # type: ignore[arg-type]
        settings=load_settings(text),
    )
    torch.manual_seed(context.seed)
    shape = replace(
        config.talker,
        source_width=thinker.config.width,
        codebooks=codec.config.codebooks,
        codebook_size=codec.config.codebook_size,
    )
    talker = Talker(shape)
    source = open_speech(config.data, context.seed, fits=sayable(studio, shape, context.name))
    task = TalkerTask(talker, studio, source, config)
    fit(task, config.loop, config.optim, site_of(context))
    save_part(context.out, "talker", talker)
    return measure(config, source, studio, talker, context)


def sayable(studio: Studio, talker: TalkerConfig, name: str) -> Fits:
    """What the Talker has frames for, the recogniser too, and the Thinker positions."""
    mel, tower = studio.settings.mel, studio.tower.config.max_frames
    heard = no_longer(
        tower * DOWNSAMPLE * mel.hop / mel.rate, f"the recogniser's max_frames {tower}"
    )
    said = no_longer(
        talker.max_frames / studio.speech_codec.config.frame_rate,
        f"{name}.talker.max_frames {talker.max_frames}",
    )
    most = studio.thinker.config.max_positions

    def fits(text: str, seconds: float) -> str:
        reply = SequenceBuilder(studio.text_codec, studio.settings.template).open("assistant")
        positions = len(reply.text(text).close().build())
        read = f"a text of {positions} positions, but the Thinker has {most}; cut it"
        return heard(text, seconds) or said(text, seconds) or (read if positions > most else "")

    return fits


def measure(
    config: TrainTalkerConfig,
    source: Source[SpeechItem],
    studio: Studio,
    talker: Talker,
    context: StageContext,
) -> Report:
    """Read-back word errors against the right and a wrong text, stops, alignment failures."""
    items = take(source, "seen", config.eval_items)
    texts = [item.text for item in items]
    states = reply_states(studio.thinker, studio.text_codec, studio.settings.template, texts)
    spoken, stopped = [], []
    with context.progress.task("reading back", total=len(texts), unit="sentence") as bar:
        for state in states:
            result = talk(talker, state)
            mel = studio.speech_codec.decode(result.codes)
            spoken.append(np.asarray(vocode(mel, studio.settings.mel), dtype=np.float32))
            stopped.append(result.stopped)
            bar.update(1)
    heard = transcribe(studio.tower, studio.text_codec, studio.settings.mel, spoken)
    for i in range(min(4, len(spoken))):
        save_wav(context.out / f"sample_{i}.wav", Audio(spoken[i], studio.settings.mel.rate))
    train = take(source, "train", 100)
    lost = [line is None for line in lines_of(studio, train)]
    metrics = {
        "speech.readback_wer": word_errors(texts, heard),
        "speech.readback_wer_wrong_text": word_errors(derange(texts), heard),
        "speech.stops": wilson(sum(stopped), len(stopped)),
        "speech.unalignable": wilson(sum(lost), len(lost)),
    }
    notes = {f"sample_{i}": f"{texts[i]} | heard: {heard[i]}" for i in range(min(4, len(texts)))}
    return Report(metrics=metrics, notes=notes)


def checks(config: TrainTalkerConfig) -> tuple[Check, ...]:
    """The gate."""
    check = partial(Check, min_n=min(100, config.eval_items))
    return (
        check(
            metric="speech.readback_wer",
            op="<=",
            threshold=config.max_wer,
            why="the recogniser must understand unseen sentences when they are spoken",
        ),
        check(
            metric="speech.readback_wer_wrong_text",
            op=">=",
            threshold=config.min_wer_wrong,
            why="speech must say this text, not any text",
        ),
        check(
            metric="speech.readback_wer_wrong_text",
            op=">=",
            threshold=5.0,
            times="speech.readback_wer",
            why="the wrong text must fit five times worse than the right one",
        ),
        check(metric="speech.stops", op=">=", threshold=0.99, why="speech must end by itself"),
        check(
            metric="speech.unalignable",
            op="<=",
            threshold=config.max_unalignable,
            why="utterances without word times teach nothing, silently",
        ),
    )
