"""Sentences made of tokens are read back against what was asked for, and against other words."""

from collections.abc import Sequence

import numpy as np

from lumoomni.audits.making import MakingConfig, said
from lumoomni.infer.draw import DrawConfig, Made
from lumoomni.media.audio import Audio

CONFIG = MakingConfig(sound=DrawConfig(tries=4, most=8), sentences=12, longest=99)


class Speaker:
    """Each sound holds the number of its sentence."""

    texts: Sequence[str] = ()

    def sound(self, prompts: Sequence[str], n: int, config: DrawConfig) -> list[Made]:
        assert (n, config.most, config.tries) == (1, 99, 1)
        self.texts = prompts
        sounds = [Audio(np.full(10, k, np.float32), 16000) for k in range(len(prompts))]
        return [
            Made(p, s, np.zeros(1, np.int64), None) for p, s in zip(prompts, sounds, strict=True)
        ]

    def heard(self, sounds: Sequence[Audio]) -> list[str]:
        return [self.texts[int(one.samples[0])] for one in sounds]


def test_right_speech_is_read_back_and_is_wrong_for_other_words() -> None:
    speaker = Speaker()
    found = said(speaker, CONFIG, 0, speaker.heard)  # type: ignore[arg-type]
    assert found["said.wer"].value == 0 and found["said.wer"].n == 12
    assert found["said.wer_swapped"].value > 0.6


def test_silence_is_no_speech() -> None:
    found = said(Speaker(), CONFIG, 0, lambda sounds: [""] * len(sounds))  # type: ignore[arg-type]
    assert found["said.wer"].value >= 1
