"""Show what a built model does: caption, question, transcript, speech, and all of them at once.

Run it after a build:  python examples/demo.py runs/nano
It writes what it showed into runs/nano/show/ and prints the path of an HTML report.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import lumoomni
from lumoomni.data.world.language import caption
from lumoomni.data.world.questions import visual_question
from lumoomni.data.world.scene import draw, make_scene
from lumoomni.data.world.speech import synthesize, voice
from lumoomni.data.world.split import rng
from lumoomni.errors import InputError
from lumoomni.infer.chat import Lumo
from lumoomni.media.audio import Audio, save_wav
from lumoomni.media.image import save_png
from lumoomni.report.html import SHOW, write_report

HELD_OUT = "unseen"


def say(text: str, path: Path, number: int) -> Path:
    """A user's voice, from the synthesiser, as a file."""
    spoken = synthesize(text, voice(0, "seen", number))
    save_wav(path, Audio(spoken.samples, 16000))
    return path


def look(lumo: Lumo, folder: Path) -> list[dict[str, Any]]:
    """A picture described and asked about; its colours and shapes were never seen together."""
    scene = make_scene(7, HELD_OUT, 3, count=2)
    picture = draw(scene, 256)
    save_png(folder / "scene.png", picture)
    described = lumo.chat(image=picture).text
    asked = visual_question(scene, rng(7, "demo"))
    answered = lumo.chat(asked.question, image=picture).text
    lines = [
        f"Describe the picture. -> {described}",
        f"(the truth: {caption(scene)})",
        f"{asked.question} -> {answered}",
    ]
    title = "A picture, described and questioned"
    return [{"title": title, "picture": "scene.png", "lines": lines}]


def listen(lumo: Lumo, folder: Path) -> list[dict[str, Any]]:
    """A spoken question written down and answered."""
    path = say("What is seven plus four?", folder / "question.wav", 5)
    reply = lumo.chat(audio=path)
    lines = [f"heard: {reply.transcript}", f"answer: {reply.text}"]
    sounds = [{"title": "the question", "file": path.name}]
    return [{"title": "Speech, transcribed and answered", "lines": lines, "sounds": sounds}]


def speak(lumo: Lumo, folder: Path) -> list[dict[str, Any]]:
    """A text spoken, and read back by the recogniser."""
    text = "a small blue star above a large yellow circle"
    audio = lumo.speak(text)
    save_wav(folder / "spoken.wav", audio)
    lines = [f"text: {text}", f"read back: {lumo.transcribe(audio)}"]
    sounds = [{"title": "the model's voice", "file": "spoken.wav"}]
    return [{"title": "A text, spoken", "lines": lines, "sounds": sounds}]


def everything(lumo: Lumo, folder: Path) -> list[dict[str, Any]]:
    """A spoken question about a picture, answered by voice."""
    scene = make_scene(7, "seen", 11, count=2)
    picture = draw(scene, 256)
    save_png(folder / "asked.png", picture)
    asked = visual_question(scene, rng(7, "demo-spoken"), "neighbour")
    question = say(asked.question, folder / "asked.wav", 2)
    reply = lumo.chat(image=picture, audio=question, speak=True)
    if reply.audio is not None:
        save_wav(folder / "answer.wav", reply.audio)
    lines = [
        f"asked aloud: {asked.question}",
        f"answered: {reply.text} (the truth: {asked.answer})",
    ]
    sounds = [{"title": "the question", "file": "asked.wav"}]
    if reply.audio is not None and np.abs(reply.audio.samples).max() > 0:
        sounds.append({"title": "the answer", "file": "answer.wav"})
    return [
        {
            "title": "A spoken question about a picture, answered by voice",
            "picture": "asked.png",
            "lines": lines,
            "sounds": sounds,
        }
    ]


def main() -> int:
    """Run all four, print them, write the report."""
    if len(sys.argv) != 2:
        print("usage: python examples/demo.py BUILD_DIRECTORY", file=sys.stderr)
        return 2
    build = Path(sys.argv[1])
    try:
        lumo = lumoomni.load(build, unproven=True)
        for sentence in lumo.parts.unproven:
            print(f"NOT PROVEN: {sentence}", file=sys.stderr)
        folder = build / SHOW
        folder.mkdir(exist_ok=True)
        shown = [item for part in (look, listen, speak, everything) for item in part(lumo, folder)]
        (folder / "show.json").write_text(json.dumps(shown, indent=2))
        for item in shown:
            print(f"\n{item['title']}")
            for line in item["lines"]:
                print(f"  {line}")
        print(f"\nreport: {write_report(build).resolve()}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
