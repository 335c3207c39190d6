"""The Python API: turns, media, history, notes, and clear refusals."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lumoomni
from lumoomni.errors import InputError
from lumoomni.infer.chat import Choice, Lumo, Reply, SoundChunk, TextDelta
from lumoomni.infer.reply import AudioPart, ImagePart, TextPart
from lumoomni.media.audio import Audio
from tests.tiny import write_model

PICTURE = np.full((40, 50, 3), 200, np.uint8)
TONE = (np.sin(np.arange(16000) / 20).astype(np.float32) * 0.3, 16000)
SHORT = Choice(max_new_tokens=8)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def lumo(build: Path) -> Lumo:
    return lumoomni.load(build)


@pytest.mark.parametrize(
    "inputs",
    [
        {"text": "what colour is it?"},
        {"image": PICTURE},
        {"text": "which?", "image": [PICTURE, PICTURE]},
        {"audio": TONE},
        {"text": "hm?", "image": PICTURE, "audio": TONE, "system": "be kind"},
    ],
)
def test_every_mix_is_answered_the_same_way_twice(lumo: Lumo, inputs: dict) -> None:
    one, two = (lumo.chat(choice=SHORT, **inputs) for _ in range(2))
    assert one.text == two.text
    assert [turn.role for turn in one.history] == ["user", "assistant"]


def test_streamed_text_is_the_reply_and_speech_comes_with_it(lumo: Lumo) -> None:
    choice = Choice(max_new_tokens=30, temperature=2.0, seed=4)
    events = list(lumo.stream("what?", speak=True, choice=choice))
    reply = events[-1]
    assert isinstance(reply, Reply) and reply.audio is not None
    deltas = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert deltas.strip() == reply.text
    chunks = [e.samples for e in events if isinstance(e, SoundChunk)]
    assert np.array_equal(np.concatenate(chunks), reply.audio.samples)


def test_a_reply_is_its_parts_in_order(lumo: Lumo) -> None:
    said = lumo.chat("what?", choice=SHORT)
    assert said.parts == (TextPart(text=said.text),) and said.audio is None and said.images == ()
    wordy = Choice(max_new_tokens=30, temperature=2.0, seed=4)
    spoken = lumo.chat("what?", speak=True, choice=wordy)
    assert [type(part) for part in spoken.parts] == [TextPart, AudioPart]
    sound = spoken.parts[1]
    assert isinstance(sound, AudioPart) and sound.audio is spoken.audio
    assert sound.audio.rate == 16000 and spoken.text


def test_a_reply_shows_what_its_parts_hold() -> None:
    picture, sound = np.zeros((4, 5, 3), np.uint8), Audio(np.zeros(3, np.float32), 16000)
    parts = (TextPart(text="look:"), ImagePart(pixels=picture), TextPart(text="a circle"))
    reply = Reply(parts=(*parts, AudioPart(audio=sound)))
    assert reply.text == "look:\na circle" and reply.audio is sound
    assert len(reply.images) == 1 and reply.images[0] is picture
    with pytest.raises(ValueError, match=r"a part of text, .* but got ImagePart"):
        Reply(parts=parts[1:2])
    with pytest.raises(ValueError, match="but got nothing"):
        Reply(parts=())


def test_history_is_heard(lumo: Lumo) -> None:
    first = lumo.chat("a large red circle", choice=SHORT)
    layout = lumo.layout
    turns = (*first.history, first.history[0])
    assert len(layout.encode(turns)) > len(layout.encode(first.history))
    second = lumo.chat("and now?", history=first.history, choice=SHORT)
    assert len(second.history) == 4


def test_the_oldest_turns_give_way_and_it_is_said(lumo: Lumo) -> None:
    history = lumo.chat("a large red circle above", choice=SHORT).history * 20
    reply = lumo.chat("what?", history=history, system="stay", choice=SHORT)
    assert any("oldest turns were left out" in note for note in reply.notes)
    with pytest.raises(InputError, match=r"positions, \d+ more than the"):
        lumo.chat("red " * 400, choice=SHORT)


def test_long_sound_is_cut_and_the_seconds_are_named(lumo: Lumo) -> None:
    long = (np.tile(TONE[0], 12), 16000)
    reply = lumo.chat(audio=long, choice=SHORT)
    assert any("12.0 s long; only its first 8.0 s" in note for note in reply.notes)
    silent = lumo.chat(audio=(np.zeros(16000, np.float32), 16000), choice=SHORT)
    assert "the sound is silent" in silent.notes


def test_speech_alone(lumo: Lumo) -> None:
    audio = lumo.speak("a red circle")
    assert audio.rate == 16000 and audio.seconds > 0.1
    assert np.array_equal(np.concatenate(list(lumo.stream_speech("a red circle"))), audio.samples)
    assert isinstance(lumo.transcribe(audio), str)
    with pytest.raises(InputError, match="nothing to say"):
        lumo.speak("?!")


def test_what_is_missing_is_named(build: Path, lumo: Lumo, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to answer"):
        lumo.chat()
    with pytest.raises(InputError, match="no file"):
        lumo.chat(image=tmp_path / "none.png")
    with pytest.raises(InputError, match="change the sampling"):
        lumo.chat("a", choice=Choice(temperature=-1))
    blind = lumoomni.load(build / "train_talker")
    with pytest.raises(InputError, match="image_connector yet"):
        blind.chat(image=PICTURE)
    with pytest.raises(InputError, match="no talker yet"):
        lumoomni.load(build / "pretrain_text").speak("a")


def test_an_answer_of_nothing_has_no_sound(lumo: Lumo, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> Iterator[SoundChunk]:
        yield from ()

    voice = lumo._voice()
    voice.talker.end()
    assert len(voice.finish()) == 0
    monkeypatch.setattr(Lumo, "_write", nothing)
    assert lumo.chat("what?", speak=True, choice=SHORT).audio is None


def test_speech_says_where_its_limit_cut_it(lumo: Lumo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words beyond the limit are never lost without a word."""
    whole: list[str] = []
    list(lumo.stream_speech("a red circle", notes=whole))
    plain = Lumo._voice
    monkeypatch.setattr(Lumo, "_voice", lambda self: plain(self, 2))
    notes: list[str] = []
    chunks = list(lumo.stream_speech("a red circle", notes=notes))
    assert len(notes) == 1 and "speech was cut at its limit, after 0." in notes[0]
    assert sum(map(len, chunks)) > 0 and len(whole) <= 1
    with pytest.warns(UserWarning, match="cut at its limit"):
        lumo.speak("a red circle")
    said = lumo.chat("what?", speak=True, choice=Choice(max_new_tokens=20, temperature=2.0))
    assert any("cut at its limit" in note for note in said.notes)


def test_a_text_of_any_length_is_spoken(lumo: Lumo) -> None:
    """More ids than the Thinker has positions: said in breaths, and each breath as alone."""
    most = lumo.parts.need("thinker").config.max_positions
    one = "a large red circle and a small blue square."
    text = " ".join([one] * (most // 8))
    assert len(lumo.parts.text_codec.encode(text)) > most
    stream = lumo.stream_speech(text)
    assert len(next(stream)) > 0
    stream.close()
    with pytest.raises(InputError, match="nothing to say"):
        list(lumo.stream_speech(" ?! "))
