"""Speaking: reply tokens to codes to mel to sound, as they come.

Knows: when a token may be spoken (its successor must be known, or the reply over), the Talker's
conditions, and the order codes -> mel -> samples.
Does not know: where the reply comes from. The sound does not depend on when tokens arrived.
Costs: one Talker step a frame; at 25 frames a second about a twentieth of real time for `nano`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lumoomni.codecs.speech_rvq import CodecStream, SpeechCodec
from lumoomni.codecs.text import TextCodec
from lumoomni.codecs.vocoder import StreamingGriffinLim, vocoder_config
from lumoomni.infer.sampling import SamplingConfig, sample
from lumoomni.media.mel import MelConfig
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.talker import Talker
from lumoomni.model.thinker import Thinker
from lumoomni.uti.sequence import SequenceBuilder

SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+")


@dataclass(frozen=True, kw_only=True)
class ReplyStates:
    """R reply tokens: ids [R], hidden [R, D] with each token as input, embeds [R, D], spoken."""

    ids: Tensor
    hidden: Tensor
    embeds: Tensor
    spoken: Tensor


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """codes [F, Q]; `stopped` is False when the frame limit ended the speech."""

    codes: Tensor
    stopped: bool


@torch.no_grad()
def reply_states(
    thinker: Thinker, text_codec: TextCodec, template: str, texts: Sequence[str]
) -> list[ReplyStates]:
    """States of the Thinker while it holds each text as its reply, without any prompt."""
    sequences = [
        SequenceBuilder(text_codec, template).open("assistant").text(text).close().build()
        for text in texts
    ]
    lengths = torch.tensor([len(s) for s in sequences])
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(s.ids) for s in sequences], batch_first=True
    )
    embeds = thinker.embed(ids)
    hidden = thinker(embeds, attention=AttentionSpec(lengths=lengths)).hidden
    out = []
    for row, sequence in enumerate(sequences):
        span = sequence.spans[0]
        chosen = slice(span.start, span.stop)
        out.append(
            ReplyStates(
                ids=ids[row, chosen],
                hidden=hidden[row, chosen],
                embeds=embeds[row, chosen],
                spoken=torch.from_numpy(text_codec.spoken[sequence.ids[chosen]]),
            )
        )
    return out


def breaths(text: str, words: int = 40) -> list[str]:
    """A text in parts of at most so many words, each ending with a sentence where one ends in time.

    The Talker learned to say a sentence or two, and a Thinker has only so many positions.
    """
    found: list[list[str]] = [[]]
    for sentence in SENTENCE_END.split(text.strip()):
        left = sentence.split()
        if found[-1] and len(found[-1]) + len(left) > words:
            found.append([])
        while len(found[-1]) + len(left) > words:
            room = words - len(found[-1])
            found[-1] += left[:room]
            left = left[room:]
            found.append([])
        found[-1] += left
    short = len(found) == 1  # said as it stands, to the letter
    return [text] if short else [" ".join(one) for one in found if one]


class TalkerStream:
    """Frames of codes from reply tokens: `push` tokens in order, `end`, and read `frames`."""

    def __init__(
        self,
        talker: Talker,
        sampling: SamplingConfig | None = None,
        *,
        seed: int = 0,
        max_frames: int | None = None,
    ) -> None:
        self._talker = talker
        self._sampling = sampling or SamplingConfig()
        self._generator = torch.Generator().manual_seed(seed)
        self._limit = min(max_frames or talker.config.max_frames, talker.config.max_frames)
        self._cache = talker.new_cache(1, self._limit)
        self._tokens: list[tuple[Tensor, Tensor, bool]] = []
        self._ended = False
        self._now = -1
        self._progress = 0
        self._condition: Tensor | None = None
        self._past = talker.start_table
        self.count = 0
        self.stopped = False

    def push(self, hidden: Tensor, embed: Tensor, spoken: bool) -> None:
        """The next reply token: its state [D], its embedding [D], whether it is said aloud."""
        self._tokens.append((hidden, embed, bool(spoken)))

    def end(self) -> None:
        """No more tokens will come."""
        self._ended = True

    @property
    def done(self) -> bool:
        """True once the speech has stopped or reached its limit."""
        return self.stopped or self.count >= self._limit

    @torch.inference_mode()
    def frames(self, most: int | None = None) -> Tensor:
        """Codes [F', Q] of the frames that the tokens so far allow, at most `most` of them."""
        out: list[Tensor] = []
        while not self.stopped and self.count < self._limit and len(out) != most:
            if self._condition is None and not self._enter():
                break
            out.append(self._step())
        books = self._talker.config.codebooks
        return torch.stack(out) if out else torch.zeros(0, books, dtype=torch.long)

    def _enter(self) -> bool:
        """Go to the next spoken token if it and its successor are known."""
        place = self._now + 1
        while place < len(self._tokens) and not self._tokens[place][2]:
            place += 1
        if place >= len(self._tokens):
            # Silent tokens at the end of what is known are only passed once the reply is over.
            self.stopped = self._ended
            return False
        if place + 1 >= len(self._tokens) and not self._ended:
            return False
        hidden, embed, _ = self._tokens[place]
        last = place + 1 >= len(self._tokens)
        following = torch.zeros_like(embed) if last else self._tokens[place + 1][1]
        self._condition = self._talker.condition(hidden, embed, following)
        self._now, self._progress = place, 0
        return True

    def _step(self) -> Tensor:
        talker = self._talker
        assert self._condition is not None
        x = self._condition + talker.progress_table.weight[self._progress] + self._past
        state = talker.decode(x[None, None], self._cache)[0, 0]
        codes = torch.zeros(0, dtype=torch.long)
        for _ in range(talker.config.codebooks):
            logits = talker.code_logits(state, codes)[None]
            codes = torch.cat([codes, sample(logits, self._sampling, self._generator)])
        self._past = talker.embed_codes(codes)
        self._progress += 1
        self.count += 1
        leave = float(talker.advance_logit(state, codes)) > 0
        if leave or self._progress >= talker.config.max_progress:
            self._condition = None
        return codes


def talk(
    talker: Talker, states: ReplyStates, sampling: SamplingConfig | None = None, *, seed: int = 0
) -> Spoken:
    """All codes of a whole reply."""
    stream = TalkerStream(talker, sampling, seed=seed)
    for hidden, embed, spoken in zip(
        states.hidden, states.embeds, states.spoken.tolist(), strict=True
    ):
        stream.push(hidden, embed, spoken)
    stream.end()
    codes = stream.frames()
    return Spoken(codes=codes, stopped=stream.stopped)


class SpeechStream:
    """Reply tokens to sound. `push` and `finish` return samples float32 as soon as they settle."""

    def __init__(self, talker: TalkerStream, codec: SpeechCodec, mel: MelConfig) -> None:
        self.talker = talker
        self._codec = CodecStream(codec)
        self._vocoder = StreamingGriffinLim(vocoder_config(mel))

    @property
    def over(self) -> bool:
        """True when the Talker has nothing left to say."""
        return self.talker.done

    def push(self, hidden: Tensor, embed: Tensor, spoken: bool) -> np.ndarray:
        """One reply token; says all that it allows."""
        self.talker.push(hidden, embed, spoken)
        return self.advance()

    def advance(self, most: int | None = None) -> np.ndarray:
        """At most `most` more frames of codes, and the samples that they settle."""
        return self._vocoder.push(self._codec.push(self.talker.frames(most)))

    def finish(self) -> np.ndarray:
        """The reply is over: everything that is left."""
        self.talker.end()
        first = self.advance()
        rest = self._vocoder.push(self._codec.flush())
        return np.concatenate([first, rest, self._vocoder.flush()])


def warm_up(voice: SpeechStream, width: int) -> None:
    """Say a few frames of nothing, so that the first reply does not wait for memory and kernels.

    The first sound of a process left after 27 % of the time without it, after 18 - 21 % with it.
    """
    token = torch.zeros(width)
    for _ in range(3):
        voice.talker.push(token, token, True)
    voice.advance(8)
    voice.finish()
