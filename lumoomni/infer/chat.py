"""Talking with a model: text, pictures, sound and video in; text and speech out.

Knows: files and arrays as users have them, turns, history, the context budget, streaming.
Does not know: training. Costs: one prefill of the conversation and one cached step per token;
with speech, Talker steps between them, so that sound leaves while the reply is being written.
"""

import warnings
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
from lumoomni.infer.draw import PICTURE, SOUND, Artist, DrawConfig
from lumoomni.infer.engine import generate
from lumoomni.infer.events import Choice, SoundChunk, TextDelta, Words, limit_note
from lumoomni.infer.listen import LONGEST, transcribe
from lumoomni.infer.reply import AudioPart, ImagePart, Part, Reply, TextPart
from lumoomni.infer.speech import SpeechStream, TalkerStream, breaths, reply_states, warm_up
from lumoomni.media.audio import Audio, load_audio
from lumoomni.media.image import load_image, normalise, resize
from lumoomni.media.video import load_video
from lumoomni.model.omni import OmniModel
from lumoomni.uti.sequence import end_id

FEATURES_PER_SECOND = 12.5
DESCRIBE = "Describe the picture."
FRAMES_AT_ONCE = 4


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
        sound: str | None = None,
        as_tokens: bool = False,
        choice: Choice | None = None,
    ) -> Iterator[TextDelta | SoundChunk | Reply]:
        """Pieces of the reply as they are made, and the whole `Reply` last.

        image: a path, PIL picture or array, or a list of them. audio: a path or (array, rate).
        video: a path, seen at one frame a second. With `speak`, sound chunks come in between.
        draw, sound: words for a picture and a sound that the reply holds besides; the history holds
        them too, so that later turns can ask about them. With `as_tokens` one picture or one sound
        is described as the token stages learned it: so sounds are heard that are no speech.
        Raises InputError for media that cannot be used, or senses that the model lacks.
        """
        choice = choice or Choice()
        if as_tokens:
            reply = self._describe(text, image, audio, video, tuple(history))
            yield TextDelta(text=reply.text)
            yield reply
            return
        asked, notes = self._turn(text, image, audio, video)
        made = self._make(draw, sound, choice.seed)
        transcript = self._transcript(asked) if asked.sounds and not asked.text else ""
        turns, more = self._fit(tuple(history), asked, system, choice.max_new_tokens)
        notes += more
        said, sounds = Words(self.layout), []
        for event in self._write(turns, choice, said, speak=speak):
            if isinstance(event, SoundChunk):
                sounds.append(event.samples)
            yield event
        answer = self.layout.text_codec.decode(said.ids).strip()
        notes += [limit_note(sounds, self.parts.settings.mel.rate)] if said.unsaid else []
        spoken: list[Part] = []
        if sounds:
            whole = Audio(np.concatenate(sounds), self.parts.settings.mel.rate)
            spoken.append(AudioPart(audio=whole))
        yield Reply(
            parts=(TextPart(text=answer), *spoken, *made),
            transcript=transcript,
            notes=tuple(notes),
            history=(*history, asked, self._said(answer, made)),
        )

    def _write(
        self, turns: tuple[Turn, ...], choice: Choice, said: "Words", *, speak: bool
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
            samples = np.concatenate([*chunks, voice.finish()])
            if len(samples):
                yield SoundChunk(samples=samples, rate=rate)
            said.unsaid = not voice.talker.stopped

    @property
    def artist(self) -> Artist:
        """The model of the token stages. Raises InputError for one that has none."""
        if self._artist is None:
            self._artist = Artist.open(self.parts.artifact.path, unproven=self.unproven)
        return self._artist

    def _make(self, draw: str | None, sound: str | None, seed: int) -> tuple[Part, ...]:
        """A picture and a sound. Raises InputError for a model that makes none."""
        parts: list[Part] = []
        if draw is not None:
            drawn = self.artist.draw([draw], 1, replace(PICTURE, seed=seed))[0].made
            parts.append(ImagePart(pixels=np.asarray(drawn)))
        if sound is not None:
            heard = self.artist.sound([sound], 1, replace(SOUND, seed=seed))[0].made
            assert isinstance(heard, Audio)
            parts.append(AudioPart(audio=heard, made=True))
        return tuple(parts)

    def _describe(
        self, text: str | None, image: Any, audio: Any, video: Any, history: tuple[Turn, ...]
    ) -> Reply:
        """What the token stages say of one picture, or of one sound; they take no questions."""
        media = [*(image if isinstance(image, (list, tuple)) else [image]), audio]
        if text or video is not None or len([one for one in media if one is not None]) != 1:
            raise InputError(
                "described by its tokens is one picture or one sound, without words or a video; "
                "to ask about it, leave --as-tokens (as_tokens) out"
            )
        space = self.artist.uti.space
        if audio is None:
            seen = load_image(next(one for one in media if one is not None))
            given, turn = seen, Turn(role="user", text="", images=(self._picture(seen),))
        else:
            given = load_audio(audio, space.codec("audio").sample_rate)
            turn = Turn(role="user", text="", sounds=(self._heard(given),))
        said = str(self.artist.read([given], DrawConfig(temperature=0.0))[0].made).strip()
        answer = Turn(role="assistant", text=said)
        return Reply(parts=(TextPart(text=said),), history=(*history, turn, answer))

    def _said(self, text: str, made: Sequence[Part]) -> Turn:
        """The model's own turn: what it made stands before its words, as what is shown to it."""
        images = tuple(self._picture(p.pixels) for p in made if isinstance(p, ImagePart))
        sounds = tuple(self._heard(p.audio) for p in made if isinstance(p, AudioPart))
        return Turn(role="assistant", text=text, images=images, sounds=sounds)

    def _heard(self, audio: Audio) -> np.ndarray:
        self.parts.need("audio_connector")
        return load_audio(audio, self.parts.settings.mel.rate).samples

    def transcribe(self, audio: Any, longest: float = LONGEST) -> str:
        """What is said in a clip, by the recogniser; more than `longest` seconds in parts."""
        if not longest > 0.2:
            raise InputError(f"parts of {longest} s cannot be heard; give more than 0.2")
        rate = self.parts.settings.mel.rate
        heard = load_audio(audio, rate)
        tower = self.parts.need("audio")
        codec = self.parts.text_codec
        mel = self.parts.settings.mel
        return transcribe(tower, codec, mel, [heard.samples], longest)[0]

    def speak(self, text: str) -> Audio:
        """The text in the model's voice. What did not fit is a warning, with its seconds."""
        notes: list[str] = []
        chunks = list(self.stream_speech(text, notes=notes))
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return Audio(np.concatenate(chunks), self.parts.settings.mel.rate)

    def stream_speech(self, text: str, *, notes: list[str] | None = None) -> Iterator[np.ndarray]:
        """Chunks of speech float32[T] as they settle; together they are `speak(text)`.

        A long text is said in breaths of a few sentences. A breath that the Talker could not end
        is cut, and `notes` says so. Raises InputError for a text without words.
        """
        said = [one for one in breaths(text) if self.parts.text_codec.says(one)]
        if not said:
            raise InputError(f"there is nothing to say in {text!r}; give some words")
        for one in said:
            voice, made = self._voice(), []
            for chunk in self._breath(voice, one):
                made.append(chunk)
                yield chunk
            if notes is not None and not voice.talker.stopped:
                notes.append(limit_note(made, self.parts.settings.mel.rate))

    def _breath(self, voice: SpeechStream, text: str) -> Iterator[np.ndarray]:
        thinker, codec = self.parts.need("thinker"), self.parts.text_codec
        states = reply_states(thinker, codec, self.parts.settings.template, [text])[0]
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

    @property
    def _context(self) -> int:
        """Positions of a conversation, its reply included."""
        most = self.parts.need("thinker").config.max_positions
        return min(self.parts.settings.context_tokens, most)

    def _turn(
        self, text: str | None, image: Any, audio: Any, video: Path | str | None
    ) -> tuple[Turn, list[str]]:
        images, sounds, notes = [], [], []
        if image is not None:
            for one in image if isinstance(image, (list, tuple)) else [image]:
                images.append(self._picture(load_image(one)))
        budget = self._context
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
            transcribe(tower, self.parts.text_codec, self.parts.settings.mel, clips, LONGEST)
        ).strip()

    def _fit(
        self, history: tuple[Turn, ...], asked: Turn, system: str | None, new: int
    ) -> tuple[tuple[Turn, ...], list[str]]:
        head = (Turn(role="system", text=system),) if system else ()
        turns = (*head, *history, asked)
        budget = self._context - new - 2
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
