"""The codec of speech and sound events: what it learns from, and that deafness fails its gate."""

from dataclasses import replace

import numpy as np
import torch

from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.data.sources import open_speech
from lumoomni.gates import Report, exact, judge, wilson
from lumoomni.media.mel import MelConfig
from lumoomni.recipes import RECIPES
from lumoomni.stages.train_codecs import CodecTask, checks, hear_events, samples_mel

CONFIG = RECIPES["nano"]().stage("train_sound_codec").config
MEL = MelConfig(n_mels=CONFIG.speech.n_mels)


def test_clips_are_speech_and_sounds_by_their_number_alone() -> None:
    codec = SpeechCodec(CONFIG.speech)
    source = open_speech("world-narrator", 0)

    def task(share: float) -> CodecTask:
        return CodecTask(codec, source, MEL, replace(CONFIG, sounds=share), 0)

    mixed, speech, sounds = task(CONFIG.sounds), task(0.0), task(1.0)
    own = [samples_mel(mixed._sound(i).samples, MEL) for i in range(16)]
    assert 0.35 < np.mean(["buzz" in mixed._sound(i).events for i in range(200)]) < 0.6
    assert all(mixed._sound(i).split == "train" for i in range(20))
    kinds = []
    for index in range(16):
        clip = mixed._clip(index)
        assert torch.equal(clip, mixed._clip(index))
        kinds.append(clip.shape == own[index].shape and torch.equal(clip, own[index]))
        assert torch.equal(clip, (sounds if kinds[-1] else speech)._clip(index))
    assert 3 <= sum(kinds) <= 13


def test_what_forgets_the_sounds_fails_and_says_so() -> None:
    torch.manual_seed(0)
    codec = SpeechCodec(replace(CONFIG.speech, mel_mean=-1.0, mel_std=2.5)).eval()
    codec.quantiser.codebooks.normal_()
    found = hear_events(codec, MEL, 20, 0)
    assert found["codec.events_original"].value == 1
    assert found["codec.events_rebuilt"].value < 0.3
    rest = {"codec.gain": exact(20.0, n=200), "codec.wer_loss": exact(0.0, n=200)}
    rest |= {f"codec.code_use.{q}": exact(1.0, n=200) for q in range(CONFIG.speech.codebooks)}
    held = {name: wilson(round(one.value * 200), 200) for name, one in found.items()}
    failures = judge(Report(metrics={**rest, **held}), checks(CONFIG)).failures()
    assert len(failures) == 1 and "codec.events_rebuilt" in failures[0]
    assert judge(
        Report(metrics={**rest, **held, "codec.events_rebuilt": wilson(200, 200)}), checks(CONFIG)
    ).passed


def test_the_talkers_codec_is_not_asked_for_sounds() -> None:
    stage = RECIPES["nano"]().stage("train_codecs")
    assert not [one for one in checks(stage.config) if "events" in one.metric]
    assert stage.config.part == "speech_codec" and CONFIG.part == "sound_codec"
    space = RECIPES["nano"]().stage("build_token_space")
    assert "train_sound_codec" in space.parents
    assert np.isclose(CONFIG.max_wer_loss, 0.03)
