"""The talking verbs: chat, transcribe, speak.

Knows: options, the terminal, files. Does not know: how answers or sounds are made.
Costs: torch is imported when a verb runs, not before.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumoomni.errors import InputError
from lumoomni.exits import print_json, verb
from lumoomni.runtime import refuse_output

if TYPE_CHECKING:
    from lumoomni.infer.chat import Choice, Lumo, Reply

Model = Annotated[Path, typer.Argument(help="A build directory or an artifact directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Unproven = Annotated[
    bool, typer.Option("--unproven", help="Use stages that failed their gate; says so each time.")
]

PLACES = {"draw": "image-out", "sound": "sound-out"}
HELP = "commands: /image PATH, /audio PATH, /save PATH, /new, /quit; anything else is said"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(epilog='lumo chat runs/nano --image cat.png --text "What do you see?"')(chat)
    app.command(epilog="lumo transcribe runs/nano speech.wav")(transcribe)
    app.command(epilog='lumo speak runs/nano "a small red circle" out.wav')(speak)


def chat(
    model: Model,
    text: Annotated[str | None, typer.Option(help="What to say or ask.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="A picture; give it again for several.")
    ] = None,
    audio_in: Annotated[
        Path | None, typer.Option("--audio-in", "--audio_in", help="A sound to listen to.")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="A video, seen at 1 frame a second.")] = None,
    audio_out: Annotated[
        Path | None, typer.Option("--audio-out", "--audio_out", help="Speak the reply to a WAV.")
    ] = None,
    draw: Annotated[str | None, typer.Option(help="Draw this besides; see --image-out.")] = None,
    image_out: Annotated[Path | None, typer.Option(help="Where the drawn PNG goes.")] = None,
    sound: Annotated[str | None, typer.Option(help="Make this sound too; see --sound-out.")] = None,
    sound_out: Annotated[Path | None, typer.Option(help="Where the made WAV goes.")] = None,
    as_tokens: Annotated[
        bool, typer.Option("--as-tokens", help="Describe a picture or any sound by its tokens.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="A system text, never dropped.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Choose among the k likeliest; 0 is all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Choose among this much probability.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply.")] = 64,
    seed: Annotated[int, typer.Option(help="Makes sampling repeatable.")] = 0,
    unproven: Unproven = False,
    as_json: Json = False,
) -> None:
    """Talk with a model: text, pictures, sound and video in; text, speech, pictures and sound out.

    Without any input it is a conversation in the terminal. A sound alone is written down and
    answered. Text appears as it is generated.
    """
    with verb():
        from lumoomni.infer.chat import Choice

        _refuse_halves(draw=(draw, image_out), sound=(sound, sound_out))
        refuse_output(audio_out, image_out, sound_out)
        choice = Choice(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            seed=seed,
        )
        lumo = _load(model, unproven)
        given = {"image": image or None, "audio": audio_in, "video": video}
        given |= {"draw": draw, "sound": sound}
        if text is None and not any(given.values()):
            if audio_out is not None or as_tokens:
                raise InputError("--audio-out and --as-tokens need something to answer; give input")
            _converse(lumo, system, choice, as_json=as_json)
            return
        inputs = {**given, "system": system, "speak": audio_out is not None, "choice": choice}
        reply = _answer(lumo, text, {**inputs, "as_tokens": as_tokens}, quiet=as_json)
        _write_out(reply, audio_out, image_out, sound_out, as_json)


def _refuse_halves(**pairs: tuple[str | None, Path | None]) -> None:
    for name, (what, where) in pairs.items():
        if (what is None) != (where is None):
            raise InputError(
                f"--{name} says what to make and --{PLACES[name]} where it goes; give both, or "
                "neither"
            )


def _write_out(
    reply: "Reply", speech: Path | None, image: Path | None, sound: Path | None, as_json: bool
) -> None:
    from lumoomni.media.audio import save_wav
    from lumoomni.media.image import save_png

    if speech is not None:
        if reply.speech is None:
            raise InputError("there is no speech to save: the reply was empty")
        save_wav(speech, reply.speech)
        print(f"speech saved to {speech}", file=sys.stderr)
    if image is not None:
        save_png(image, reply.images[0])
    if sound is not None:
        save_wav(sound, reply.sounds[0])
    if as_json:
        places = {"audio": speech, "image": image, "sound": sound}
        facts = {"text": reply.text, "transcript": reply.transcript, "notes": list(reply.notes)}
        print_json({**facts, **{k: str(v) if v else None for k, v in places.items()}})


def transcribe(
    model: Model,
    files: Annotated[list[Path], typer.Argument(help="Sound files.")],
    longest: Annotated[
        float, typer.Option(help="Seconds heard at once; what is longer is cut where it is quiet.")
    ] = 4.0,
    unproven: Unproven = False,
    as_json: Json = False,
) -> None:
    """Write down what is said in sound files."""
    with verb():
        lumo = _load(model, unproven)
        found = {str(path): lumo.transcribe(path, longest) for path in files}
        if as_json:
            print_json({"transcripts": found})
        else:
            for path, text in found.items():
                print(text if len(found) == 1 else f"{path}\t{text}")


def speak(
    model: Model,
    text: Annotated[str, typer.Argument(help="What to say.")],
    out: Annotated[Path, typer.Argument(help="The WAV file to write.")],
    unproven: Unproven = False,
    as_json: Json = False,
) -> None:
    """Say a text in the model's voice, and report how quickly."""
    with verb():
        import numpy as np

        from lumoomni.media.audio import Audio, save_wav

        refuse_output(out)
        lumo = _load(model, unproven)
        began = time.perf_counter()
        chunks, first, notes = [], 0.0, []
        for chunk in lumo.stream_speech(text, notes=notes):
            first = first or time.perf_counter() - began
            chunks.append(chunk)
        total = time.perf_counter() - began
        audio = Audio(np.concatenate(chunks), lumo.parts.settings.mel.rate)
        save_wav(out, audio)
        facts = {
            "out": str(out),
            "seconds": round(audio.seconds, 3),
            "real_time_factor": round(total / max(audio.seconds, 1e-9), 4),
            "first_audio_after": round(first, 4),
            "first_audio_share": round(first / total, 4),
            "notes": notes,
        }
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        if as_json:
            print_json(facts)
        else:
            print(
                f"{out}: {facts['seconds']} s of speech, made in {total:.2f} s "
                f"(real-time factor {facts['real_time_factor']}), first sound after {first:.3f} s"
            )


def _load(model: Path, unproven: bool) -> "Lumo":
    import lumoomni

    lumo = lumoomni.load(model, unproven=unproven)
    for sentence in lumo.parts.unproven:
        print(f"warning: {sentence}", file=sys.stderr)
    return lumo


def _answer(lumo: "Lumo", text: str | None, inputs: dict[str, Any], *, quiet: bool) -> "Reply":
    from lumoomni.infer.chat import Reply, TextDelta

    shown = False
    for event in lumo.stream(text, **inputs):
        if isinstance(event, Reply):
            if not quiet:
                if shown:
                    print()
                if event.transcript:
                    print(f"heard: {event.transcript}")
                for note in event.notes:
                    print(f"note: {note}", file=sys.stderr)
            return event
        if isinstance(event, TextDelta) and not quiet:
            print(event.text.lstrip() if not shown else event.text, end="", flush=True)
            shown = True
    raise RuntimeError("a stream ended without its reply")


def _converse(lumo: "Lumo", system: str | None, choice: "Choice", *, as_json: bool) -> None:
    """The REPL. A line that cannot be used says why and the conversation goes on."""
    if as_json:
        raise InputError("a conversation has no JSON form; give --text or media")
    print(HELP, file=sys.stderr)
    history: tuple[Any, ...] = ()
    images: list[Path] = []
    sound: Path | None = None
    last: Reply | None = None
    while True:
        try:
            line = input("you> ").strip()
        except EOFError:
            return
        name, _, rest = line.partition(" ")
        try:
            if line in ("/quit", "/exit"):
                return
            if name == "/new":
                history, images, sound, last = (), [], None, None
            elif name == "/image":
                images.append(_existing(rest))
            elif name == "/audio":
                sound = _existing(rest)
            elif name == "/save":
                _save_last(lumo, last, rest)
            elif name.startswith("/"):
                raise InputError(f"unknown command {name}; {HELP}")
            elif line or images or sound:
                inputs = {
                    "image": images or None,
                    "audio": sound,
                    "system": system,
                    "history": history,
                    "choice": choice,
                }
                last = _answer(lumo, line or None, inputs, quiet=False)
                history, images, sound = last.history, [], None
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            if not line.startswith("/") and (images or sound):
                # One of them may be what cannot be used; kept, it would fail every line to come.
                images, sound = [], None
                print("the picture and sound that were waiting are dropped", file=sys.stderr)


def _existing(text: str) -> Path:
    path = Path(text.strip())
    if not path.is_file():
        raise InputError(f"there is no file {path}; give the path of a file")
    return path


def _save_last(lumo: "Lumo", last: "Reply | None", text: str) -> None:
    from lumoomni.media.audio import save_wav

    if last is None or not last.text:
        raise InputError("there is no reply to save yet; ask something first")
    path = Path(text.strip() or "reply.wav")
    save_wav(path, lumo.speak(last.text))
    print(f"speech saved to {path}", file=sys.stderr)
