"""Speech streams: the Talker's stream is its training forward, and cuts do not change the sound."""

import numpy as np
import pytest
import torch

from lumoomni.infer.assemble import Parts, gather
from lumoomni.infer.sampling import SamplingConfig
from lumoomni.infer.speech import (
    ReplyStates,
    SpeechStream,
    TalkerStream,
    breaths,
    reply_states,
    talk,
    warm_up,
)
from lumoomni.model.talker import Script
from tests.tiny import MEL, write_model


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return gather(write_model(tmp_path_factory.mktemp("model")))


def states(parts: Parts, text: str) -> ReplyStates:
    thinker, codec = parts.need("thinker"), parts.text_codec
    return reply_states(thinker, codec, parts.settings.template, [text])[0]


def test_reply_states_do_not_depend_on_the_batch(parts: Parts) -> None:
    texts = ["a red circle", "what colour is the large circle above the square?"]
    thinker, codec = parts.need("thinker"), parts.text_codec
    together = reply_states(thinker, codec, "compact", texts)
    for text, one in zip(texts, together, strict=True):
        alone = states(parts, text)
        assert torch.allclose(one.hidden, alone.hidden, atol=1e-5)
        assert one.ids.tolist() == codec.encode(text)
        assert len(one.spoken) == len(one.ids)


def test_the_stream_is_the_training_forward(parts: Parts) -> None:
    """Replaying a stream's own codes through the teacher-forced inputs gives its states."""
    talker, state = parts.need("talker"), states(parts, "a large red circle, above")
    owner, progress, seen = [], [], []
    stream = TalkerStream(talker)
    original = talker.decode

    def spy(x: torch.Tensor, cache: object = None) -> torch.Tensor:
        out = original(x, cache)
        seen.append(out[0, 0])
        owner.append(stream._now)
        progress.append(stream._progress)
        return out

    talker.decode = spy
    try:
        for hidden, embed, spoken in zip(
            state.hidden, state.embeds, state.spoken.tolist(), strict=True
        ):
            stream.push(hidden, embed, spoken)
        stream.end()
        codes = stream.frames()
    finally:
        del talker.decode
    script = Script(
        hidden=state.hidden[None],
        embeds=state.embeds[None],
        owner=torch.tensor([owner]),
        progress=torch.tensor([progress]),
    )
    past = torch.cat(
        [talker.start_table[None, None], talker.embed_codes(codes[None, :-1].clone())], 1
    )
    with torch.no_grad():
        forced = talker.decode(talker.inputs(script, past))[0]
    assert len(codes) == len(seen) >= int(state.spoken.sum())
    assert torch.allclose(forced, torch.stack(seen), atol=1e-4)
    assert set(owner) == set(state.spoken.nonzero()[:, 0].tolist())


def test_a_word_is_said_only_when_the_next_is_known(parts: Parts) -> None:
    state = states(parts, "a large red circle")
    stream = TalkerStream(parts.need("talker"))
    assert len(stream.frames()) == 0
    stream.push(state.hidden[0], state.embeds[0], True)
    assert len(stream.frames()) == 0
    stream.push(state.hidden[1], state.embeds[1], True)
    assert 1 <= len(stream.frames()) <= 6
    assert not stream.stopped
    stream.end()
    stream.frames()
    assert stream.stopped


def test_when_tokens_arrive_does_not_change_the_sound(parts: Parts) -> None:
    state = states(parts, "a large red circle above a small blue square")

    def sound(step: int) -> np.ndarray:
        stream = SpeechStream(TalkerStream(parts.need("talker")), parts.need("speech_codec"), MEL)
        chunks = []
        for i, (hidden, embed) in enumerate(zip(state.hidden, state.embeds, strict=True)):
            stream.talker.push(hidden, embed, bool(state.spoken[i]))
            if i % step == 0:
                chunks.append(stream.advance(step))
        return np.concatenate([*chunks, stream.finish()])

    whole = sound(10**6)
    assert len(whole) == len(talk(parts.need("talker"), state).codes) * 4 * MEL.hop
    for step in (1, 2, 3):
        assert np.array_equal(sound(step), whole)


def test_sampling_repeats_under_its_seed_and_limits_hold(parts: Parts) -> None:
    state = states(parts, "a large red circle above")
    warm = SamplingConfig(temperature=1.0)
    one, two = (talk(parts.need("talker"), state, warm, seed=3).codes for _ in range(2))
    assert torch.equal(one, two)
    stream = TalkerStream(parts.need("talker"), max_frames=2)
    for hidden, embed in zip(state.hidden, state.embeds, strict=True):
        stream.push(hidden, embed, True)
    stream.end()
    assert len(stream.frames()) == 2 and not stream.stopped and stream.done


def test_warming_up_makes_sound_and_leaves_nothing_behind(parts: Parts) -> None:
    state = states(parts, "a large red circle")

    def voice() -> SpeechStream:
        return SpeechStream(TalkerStream(parts.need("talker")), parts.need("speech_codec"), MEL)

    def say(speech: SpeechStream) -> np.ndarray:
        for hidden, embed, spoken in zip(
            state.hidden, state.embeds, state.spoken.tolist(), strict=True
        ):
            speech.talker.push(hidden, embed, spoken)
        return speech.finish()

    before, warmed = say(voice()), voice()
    made: list[int] = []
    finish = warmed.finish
    warmed.finish = lambda: _counted(finish(), made)  # type: ignore[method-assign]
    warm_up(warmed, parts.need("talker").config.source_width)
    # Codes, mel and sound all ran: samples came out of the end.
    assert warmed.talker.count >= 1 and sum(made) > 0 and warmed.over
    assert np.array_equal(say(voice()), before)


def _counted(samples: np.ndarray, made: list[int]) -> np.ndarray:
    made.append(len(samples))
    return samples


def test_a_long_text_is_said_in_breaths() -> None:
    short = "One two.  Three"
    assert breaths(short) == [short]
    text = " ".join(f"This is sentence number {i}." for i in range(30))
    parts = breaths(text)
    assert " ".join(parts) == text and len(parts) == 4
    assert all(part.endswith(".") and len(part.split()) <= 40 for part in parts)
    endless = " ".join(["word"] * 100)
    assert [len(part.split()) for part in breaths(endless)] == [40, 40, 20]
