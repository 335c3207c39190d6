"""The commands: exit codes, one clear sentence, JSON alone on stdout."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

from lumoomni.cli import app
from tests.tiny import write_model

RUN = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("cli")))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    Image.new("RGB", (50, 40), (255, 0, 0)).save(folder / "a.png")
    soundfile.write(folder / "a.wav", np.sin(np.arange(16000) / 20) * 0.3, 16000)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "empty.wav").write_bytes(b"")
    return folder


def test_every_verb_teaches() -> None:
    verbs = ("build", "status", "verify", "report", "params", "eval", "chat", "transcribe", "speak")
    for verb in verbs:
        result = RUN.invoke(app, [verb, "--help"])
        assert result.exit_code == 0 and f"lumo {verb}" in result.stdout, verb


def test_help_is_quick_because_torch_stays_out() -> None:
    code = "import sys, lumoomni, lumoomni.cli; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "nana"], "did you mean nano"),
        (["build", "nano", "pretrain_txt.loop.steps=3"], "did you mean pretrain_text"),
        (["build", "nano", "pretrain_text.loop.stepz=3"], "did you mean steps"),
        (["build", "nano", "--until", "talker"], "train_talker"),
        (["build", "missing.json"], "no file"),
        (["status", "nowhere"], "no build directory"),
        (["verify", "nowhere"], "no build directory"),
        (["chat", "nowhere", "--text", "hi"], "there is no"),
        (["params", "nona"], "did you mean nano"),
        (["eval", "nowhere"], "there is no"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_two(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = RUN.invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and words in result.stderr
    assert result.stderr.count("\n") == 1 and result.stdout == ""


def test_chat_answers_in_json_with_every_input(model: str, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "reply.wav"
    given = ["--image", str(files / "a.png"), "--audio_in", str(files / "a.wav")]
    common = ["--max-new-tokens", "6", "--temperature", "1", "--seed", "3", "--json"]
    result = RUN.invoke(app, ["chat", model, *given, "--audio_out", str(out), *common])
    assert result.exit_code == 0, result.stderr
    reply = json.loads(result.stdout)
    assert set(reply) == {"text", "transcript", "audio", "notes", "image", "sound"}
    assert reply["image"] is None
    plain = RUN.invoke(app, ["chat", model, *given, *common[:-1]])
    assert plain.stdout.splitlines()[0].strip() == reply["text"].splitlines()[0].strip()


def test_the_terminal_conversation(model: str, files: Path, tmp_path: Path) -> None:
    lines = [
        "hello",
        f"/image {files / 'a.png'}",
        "what is it?",
        "/image nothing.png",
        "/dance",
        f"/save {tmp_path / 'r.wav'}",
        "/quit",
    ]
    result = RUN.invoke(app, ["chat", model, "--max-new-tokens", "5"], input="\n".join(lines))
    assert result.exit_code == 0
    assert "there is no file nothing.png" in result.stderr
    assert "unknown command /dance" in result.stderr


def test_speak_and_transcribe(model: str, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.wav"
    spoken = RUN.invoke(app, ["speak", model, "a red circle", str(out), "--json"])
    facts = json.loads(spoken.stdout)
    assert out.is_file() and facts["seconds"] > 0 and 0 < facts["first_audio_share"] <= 1
    heard = RUN.invoke(app, ["transcribe", model, str(out), str(files / "a.wav"), "--json"])
    assert len(json.loads(heard.stdout)["transcripts"]) == 2


@pytest.mark.parametrize(
    ("option", "name", "words"),
    [
        ("--image", "broken.png", "damaged or cut off|no picture"),
        ("--image", "missing.png", "no file"),
        ("--audio-in", "empty.wav", "empty"),
        ("--audio-in", "", "directory"),
        ("--video", "a.wav", "no picture track|without frames"),
    ],
)
def test_bad_media_end_with_two(
    model: str, files: Path, option: str, name: str, words: str
) -> None:
    result = RUN.invoke(app, ["chat", model, option, str(files / name)])
    assert result.exit_code == 2
    assert any(word in result.stderr for word in words.split("|")), result.stderr


def test_status_verify_and_a_flipped_byte(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    assert RUN.invoke(app, ["verify", str(folder)]).exit_code == 0
    rows = json.loads(RUN.invoke(app, ["status", str(folder), "--json"]).stdout)["stages"]
    assert [row["state"] for row in rows] == ["passed"] * 6
    path = folder / "train_codecs" / "speech_codec.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    result = RUN.invoke(app, ["verify", str(folder), "--json"])
    assert result.exit_code == 1
    assert "speech_codec.safetensors: was changed" in json.loads(result.stdout)["problems"][0]


def test_params_stay_beside_the_seed() -> None:
    rows = json.loads(RUN.invoke(app, ["params", "muomni", "--json"]).stdout)["rows"]
    compared = [row for row in rows if row["seed"]]
    assert len(compared) == 7
    for row in compared:
        assert abs(row["difference"]) <= 0.03, row


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from lumoomni.cli import main; main()",
        "build",
        "nano",
        "--out",
        str(tmp_path / "b"),
        "--until",
        "pretrain_text",
        "pretrain_text.loop.steps=100000",
        "pretrain_text.loop.log_every=1",
        "pretrain_text.tokenizer_lines=200",
    ]
    log = tmp_path / "b" / ".work" / "pretrain_text" / "log.jsonl"

    def steps() -> int:
        return log.read_text().count("\n") if log.exists() else 0

    def run_until(count: int) -> int:
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 120
        while steps() < count:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        return process.wait(timeout=60)

    assert run_until(3) == 130
    reached = steps()
    assert run_until(reached + 2) == 130
    found = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert found == list(range(1, len(found) + 1))  # no step lost, none repeated


def test_the_conversation_goes_on_after_a_picture_that_cannot_be_used(
    model: str, files: Path
) -> None:
    lines = [f"/image {files / 'broken.png'}", "what is it?", "hello", "/quit"]
    result = RUN.invoke(app, ["chat", model, "--max-new-tokens", "5"], input="\n".join(lines))
    assert result.exit_code == 0 and result.stderr.count("error: ") == 1, result.stderr
    assert "picture and sound that were waiting are dropped" in result.stderr


def test_a_place_that_cannot_be_written_is_said_before_the_work(
    model: str, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for verb in (
        ["speak", model, "a red circle"],
        ["chat", model, "--text", "hello", "--audio-out"],
    ):
        shown = RUN.invoke(app, [*verb, str(tmp_path)])
        assert shown.exit_code == 2 and "is a directory; give the name of" in shown.stderr
        shown = RUN.invoke(app, [*verb, str(tmp_path / "file" / "a.wav")])
        assert shown.exit_code == 2 and "is a file, so" in shown.stderr


def test_what_the_system_refuses_is_one_sentence(
    model: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    shown = RUN.invoke(app, ["transcribe", model, str(files / "a.wav")])
    assert shown.exit_code == 2 and "a.wav: Permission denied; check the path" in shown.stderr


def test_a_long_sound_is_written_down(model: str, tmp_path: Path) -> None:
    """Five minutes: more than the tower has positions for."""
    noise = np.random.default_rng(0).normal(size=16000 * 300) * 0.05
    soundfile.write(tmp_path / "long.wav", noise, 16000)
    shown = RUN.invoke(app, ["transcribe", model, str(tmp_path / "long.wav"), "--json"])
    assert shown.exit_code == 0, shown.output
