"""What leaves a model while it answers, how it chooses, and the words so far.

Knows: pieces of text and sound, settings of the choice of tokens, characters of several ids.
Does not know: models. Costs: one decode of the reply for each of its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lumoomni.data.conversation import Layout
from lumoomni.errors import InputError
from lumoomni.infer.engine import GenerateConfig
from lumoomni.infer.sampling import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """The next piece of the reply."""

    text: str


@dataclass(frozen=True, kw_only=True)
class SoundChunk:
    """The next piece of speech, float32[T]."""

    samples: np.ndarray
    rate: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How to choose tokens: greedy at temperature 0."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 64
    seed: int = 0

    def generate_config(self, stop: int) -> GenerateConfig:
        """For the engine. Raises InputError for values out of range."""
        try:
            sampling = SamplingConfig(
                temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
            )
            return GenerateConfig(
                max_new_tokens=self.max_new_tokens,
                stop_ids=(stop,),
                sampling=sampling,
                seed=self.seed,
            )
        except ValueError as error:
            raise InputError(f"{error}; change the sampling options") from error


def limit_note(chunks: Sequence[np.ndarray], rate: int) -> str:
    seconds = sum(len(chunk) for chunk in chunks) / rate
    return f"speech was cut at its limit, after {seconds:.1f} s, before everything was said"


class Words:
    """Reply ids so far and the text that is settled: a character may take several ids."""

    def __init__(self, layout: Layout) -> None:
        self._codec = layout.text_codec
        self.ids: list[int] = []
        self.unsaid = False
        """Whether the Talker reached its limit before the reply was said."""
        self._shown = ""

    def push(self, token: int) -> str:
        """Add an id; the text that can be shown now."""
        self.ids.append(token)
        text = self._codec.decode(self.ids).lstrip()
        # A replacement character at the end means that more bytes of it are to come.
        if text.endswith("\ufffd"):
            return ""
        return self._show(text)

    def rest(self) -> str:
        """What was held back."""
        return self._codec.decode(self.ids).lstrip()[len(self._shown) :]

    def _show(self, text: str) -> str:
        delta = text[len(self._shown) :]
        self._shown = text
        return delta
