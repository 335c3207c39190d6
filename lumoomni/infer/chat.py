"""Talking with a model: text, pictures, sound and video in; text and speech out.

Knows: files and arrays as users have them, turns, history, the context budget, streaming.
Does not know: training. Costs: one prefill of the conversation and one cached step per token;
with speech, Talker steps between them, so that sound leaves while the reply is being written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumoomni.data.conversation import Layout, Turn
from lumoomni.errors import InputError
from lumoomni.infer.answer import omni_embedder
from lumoomni.infer.assemble import Parts, gather, preparer
from lumoomni.infer.context import SHARE_FOR_SOUND, fit_sound, fit_turns
from lumoomni.infer.draw import PICTURE, Artist
from lumoomni.infer.engine import GenerateConfig, generate
from lumoomni.infer.listen import transcribe
from lumoomni.infer.reply import AudioPart, ImagePart, Part, Reply, TextPart
from lumoomni.infer.sampling import SamplingConfig
from lumoomni.infer.speech import SpeechStream, TalkerStream, reply_states, warm_up
from lumoomni.media.audio import Audio, load_audio
from lumoomni.media.image import load_image, normalise, resize
from lumoomni.media.video import load_video
from lumoomni.model.omni import OmniModel
from lumoomni.uti.sequence import end_id

FEATURES_PER_SECOND = 12.5
DESCRIBE = "Describe the picture."
FRAMES_AT_ONCE = 4


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


@dataclass
class Lumo:
    """A loaded model. Make one with `lumoomni.load(path)`."""

    parts: Parts
    unproven: bool = False
    _omni: OmniModel | None = field(default=None, repr=False)
    _artist: Artist | None = field(default=None, repr=False)

    @classmethod
    def load(cls, path: Path | str, *, unproven: bool = False) -> "Lumo":
        """Open a build directory or an artifact directory."""
        model = cls(gather(Path(path), unproven=unproven), unproven)
        if {"talker", "speech_codec"} <= set(model.parts.modules):
            warm_up(model._voice(16), model.parts.need("talker").config.source_width)
        return model

    def chat(self, text: str | None = None, **inputs: Any) -> Reply:
        """Answer once; see `stream` for the inputs."""
        for event in self.stream(text, **inputs):
            if isinstance(event, Reply):
                return event
        raise RuntimeError("a stream ended without its reply")

    def stream(
        self,
        text: str | None = None,
        *,
        image: Any = None,
        audio: Any = None,
        video: Path | str | None = None,
        history: Sequence[Turn] = (),
        system: str | None = None,
        speak: bool = False,
        draw: str | None = None,
        choice: Choice | None = None,
    ) -> Iterator[TextDelta | SoundChunk | Reply]:
        """Pieces of the reply as they are made, and the whole `Reply` last.

        image: a path, PIL picture or array, or a list of them. audio: a path or (array, rate).
        video: a path, seen at one frame a second. With `speak`, sound chunks come in between.
        draw: words for a picture that the reply holds besides; the history shows it, so that later
        turns can ask about it.
        Raises InputError for media that cannot be used, or senses that the model lacks.
        """
        choice = choice or Choice()
        drawn = [] if draw is None else [self._draw(draw, choice.seed)]
        asked, notes = self._turn(text, image, audio, video)
        transcript = self._transcript(asked) if asked.sounds and not asked.text else ""
        turns, more = self._fit(tuple(history), asked, system, choice.max_new_tokens)
        notes += more
        said, sounds = _Words(self.layout), []
        for event in self._write(turns, choice, said, speak=speak):
            if isinstance(event, SoundChunk):
                sounds.append(event.samples)
            yield event
        answer = self.layout.text_codec.decode(said.ids).strip()
        parts: list[Part] = [TextPart(text=answer), *(ImagePart(pixels=one) for one in drawn)]
        if sounds:
            spoken = Audio(np.concatenate(sounds), self.parts.settings.mel.rate)
            parts.append(AudioPart(audio=spoken))
        yield Reply(
            parts=tuple(parts),
            transcript=transcript,
            notes=tuple(notes),
            history=(*history, asked, self._said(answer, drawn)),
        )

    def _write(
        self, turns: tuple[Turn, ...], choice: Choice, said: "_Words", *, speak: bool
    ) -> Iterator[TextDelta | SoundChunk]:
        """Generate the reply into `said`; with `speak`, the Talker follows one token behind."""
        encoded = self.layout.encode(turns, open_answer=True)
        with torch.inference_mode():
            prompt = omni_embedder(self.omni)([encoded])[0][None]
        config = choice.generate_config(end_id(self.layout.text_codec, self.layout.template))
        voice = self._voice() if speak else None
        thinker, rate = self.omni.thinker, self.parts.settings.mel.rate
        waiting: torch.Tensor | None = None
        generation = generate(thinker, prompt, config)
        for step in generation:
            # The Thinker has now read the reply token before this one: its state is known.
            if voice is not None and waiting is not None:
                chunk = self._say(voice, step.hidden[0], waiting, said.ids[-1])
                waiting = None
                if len(chunk):
                    yield SoundChunk(samples=chunk, rate=rate)
            if bool(step.finished[0]):
                break
            waiting = thinker.embed(step.ids)[0].detach()
            delta = said.push(int(step.ids[0]))
            if delta:
                yield TextDelta(text=delta)
        if said.rest():
            yield TextDelta(text=said.rest())
        if voice is not None:
            chunks = []
            if waiting is not None:
                # Cut off by max_new_tokens: the last token is still to be said.
                chunks.append(self._say(voice, generation.hidden[0, -1], waiting, said.ids[-1]))
            yield SoundChunk(samples=np.concatenate([*chunks, voice.finish()]), rate=rate)

    def _draw(self, words: str, seed: int) -> np.ndarray:
        """uint8 [S, S, 3]. Raises InputError for a model that cannot draw."""
        if self._artist is None:
            self._artist = Artist.open(self.parts.artifact.path, unproven=self.unproven)
        return np.asarray(self._artist.draw([words], 1, replace(PICTURE, seed=seed))[0].made)

    def _said(self, text: str, drawn: Sequence[np.ndarray]) -> Turn:
        """The model's own turn: what it drew stands before its words, as what is shown to it."""
        images = tuple(self._picture(one) for one in drawn)
        return Turn(role="assistant", text=text, images=images)

    def transcribe(self, audio: Any) -> str:
        """What is said in a clip, by the recogniser."""
        rate = self.parts.settings.mel.rate
        heard = load_audio(audio, rate)
        tower = self.parts.need("audio")
        codec = self.parts.text_codec
        return transcribe(tower, codec, self.parts.settings.mel, [heard.samples])[0]

    def speak(self, text: str) -> Audio:
        """The text in the model's voice."""
        chunks = list(self.stream_speech(text))
        return Audio(np.concatenate(chunks), self.parts.settings.mel.rate)

    def stream_speech(self, text: str) -> Iterator[np.ndarray]:
        """Chunks of speech float32[T] as they settle; together they are `speak(text)`."""
        voice = self._voice()
        thinker, codec = self.parts.need("thinker"), self.parts.text_codec
        states = reply_states(thinker, codec, self.parts.settings.template, [text])[0]
        if not bool(states.spoken.any()):
            raise InputError(f"there is nothing to say in {text!r}; give some words")
        for hidden, embed, aloud in zip(
            states.hidden, states.embeds, states.spoken.tolist(), strict=True
        ):
            voice.talker.push(hidden, embed, aloud)
        voice.talker.end()
        while not voice.over:
            chunk = voice.advance(FRAMES_AT_ONCE)
            if len(chunk):
                yield chunk
        yield voice.finish()

    @property
    def layout(self) -> Layout:
        """How conversations become sequences for this model."""
        settings = self.parts.settings
        return Layout(
            text_codec=self.parts.text_codec,
            template=settings.template,
            mel=settings.mel,
            image_positions=max(1, self.omni.image_positions),
            prepare=preparer(self.omni.vision),
        )

    @property
    def omni(self) -> OmniModel:
        """Thinker and senses; a sense is there when its tower and connector are."""
        if self._omni is None:
            have = self.parts.modules
            senses: dict[str, Any] = {}
            if "vision" in have and "image_connector" in have:
                senses |= {"vision": have["vision"], "image_connector": have["image_connector"]}
            if "audio" in have and "audio_connector" in have:
                senses |= {"audio": have["audio"], "audio_connector": have["audio_connector"]}
            self._omni = OmniModel(self.parts.need("thinker"), **senses)
        return self._omni

    def _turn(
        self, text: str | None, image: Any, audio: Any, video: Path | str | None
    ) -> tuple[Turn, list[str]]:
        images, sounds, notes = [], [], []
        if image is not None:
            for one in image if isinstance(image, (list, tuple)) else [image]:
                images.append(self._picture(load_image(one)))
        budget = self.parts.settings.context_tokens
        if video is not None:
            self.parts.need("image_connector")
            most = max(1, budget // 2 // (self.omni.image_positions + 2))
            seen = load_video(video, 1.0, most)
            images += [self._picture(frame) for frame in seen.frames]
            if seen.dropped:
                notes.append(
                    f"the video has {len(seen.frames) + seen.dropped} frames at one a second; "
                    f"only the first {len(seen.frames)} fit and were seen"
                )
        if audio is not None:
            self.parts.need("audio_connector")
            mel = self.parts.settings.mel
            heard = load_audio(audio, mel.rate)
            if heard.silent:
                notes.append("the sound is silent")
            cut = fit_sound(
                heard.samples,
                rate=mel.rate,
                positions=int(budget * SHARE_FOR_SOUND),
                per_second=FEATURES_PER_SECOND,
            )
            sounds.append(cut.samples)
            notes += [cut.note] if cut.note else []
        if not text and images and not sounds:
            text = DESCRIBE
        if not text and not images and not sounds:
            raise InputError("there is nothing to answer; give text, a picture, sound or a video")
        turn = Turn(role="user", text=text or "", images=tuple(images), sounds=tuple(sounds))
        return turn, notes

    def _picture(self, image: np.ndarray) -> np.ndarray:
        self.parts.need("image_connector")
        tower = self.parts.need("vision")
        # A tower with a processor of its own wants the picture as it is.
        return resize(image, tower.config.image_size) if preparer(tower) is normalise else image

    def _transcript(self, turn: Turn) -> str:
        clips = list(turn.sounds)
        tower = self.parts.need("audio")
        return " ".join(
            transcribe(tower, self.parts.text_codec, self.parts.settings.mel, clips)
        ).strip()

    def _fit(
        self, history: tuple[Turn, ...], asked: Turn, system: str | None, new: int
    ) -> tuple[tuple[Turn, ...], list[str]]:
        head = (Turn(role="system", text=system),) if system else ()
        turns = (*head, *history, asked)
        budget = self.parts.settings.context_tokens - new - 2
        costs = [len(self.layout.encode((turn,))) for turn in turns]
        fixed = [turn.role == "system" for turn in turns]
        kept = fit_turns(turns, costs, budget=budget, fixed=fixed)
        if kept.overflow:
            raise InputError(
                f"the question takes {budget + kept.overflow} positions, {kept.overflow} more than "
                f"the {budget} that are left beside {new} new tokens; shorten it or lower "
                "--max-new-tokens"
            )
        return kept.turns, list(kept.notes)

    def _voice(self, max_frames: int | None = None) -> SpeechStream:
        talker = TalkerStream(self.parts.need("talker"), max_frames=max_frames)
        return SpeechStream(talker, self.parts.need("speech_codec"), self.parts.settings.mel)

    def _say(
        self, voice: SpeechStream, hidden: torch.Tensor, embed: torch.Tensor, token: int
    ) -> np.ndarray:
        return voice.push(hidden, embed, bool(self.parts.text_codec.spoken[token]))


class _Words:
    """Reply ids so far and the text that is settled: a character may take several ids."""

    def __init__(self, layout: Layout) -> None:
        self._codec = layout.text_codec
        self.ids: list[int] = []
        self._shown = ""

    def push(self, token: int) -> str:
        """Add an id; the text that can be shown now."""
        self.ids.append(token)
        text = self._codec.decode(self.ids)
        # A replacement character at the end means that more bytes of it are to come.
        if text.endswith("\ufffd"):
            return ""
        return self._show(text)

    def rest(self) -> str:
        """What was held back."""
        return self._codec.decode(self.ids)[len(self._shown) :]

    def _show(self, text: str) -> str:
        delta = text[len(self._shown) :]
        self._shown = text
        return delta
