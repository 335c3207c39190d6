"""Other people's data that is longer than the model: cut or left out, counted, said, never a crash;
and what is there once is measured once."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from lumoomni.artifacts import open_artifact
from lumoomni.errors import InputError
from lumoomni.gates import Report
from lumoomni.media.mel import MelConfig
from lumoomni.model.audio import AudioTowerConfig
from lumoomni.model.encoder import EncoderConfig
from lumoomni.model.talker import TalkerConfig
from lumoomni.model.thinker import ThinkerConfig
from lumoomni.pipeline import StageContext
from lumoomni.runtime import Progress
from lumoomni.stages import instruct, pretrain_text, train_audio_encoder, train_talker
from lumoomni.train.loop import LoopConfig
from tests.tiny import STAGES, write_model

LOOP = LoopConfig(steps=2, batch_size=4)


class Heard(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(silent=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def context_of(tmp_path: Path, name: str, config: Any, parents: Path | None = None) -> StageContext:
    before = STAGES[: STAGES.index(name)] if parents else ()
    for folder in ("out", "work", "cache"):
        (tmp_path / folder).mkdir()
    return StageContext(
        name=name,
        config=config,
        parents={stage: open_artifact(parents / stage) for stage in before if parents},
        out=tmp_path / "out",
        work=tmp_path / "work",
        cache=tmp_path / "cache",
        seed=0,
        progress=Heard(),
        stop=threading.Event(),
    )


def said_in(context: StageContext, words: str) -> list[str]:
    assert isinstance(context.progress, Heard)
    return [line for line in context.progress.lines if words in line]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def talks(folder: Path, long: int, count: int = 40) -> str:
    """Questions with answers, a quarter of which are long, and a quarter of the questions."""
    rows = [{"question": f"what is {i}?", "answer": f"it is {i}"} for i in range(count)]
    for i in range(0, count, 4):
        rows[i]["answer"] += " word" * long
        rows[i + 1]["question"] += " word" * long
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"jsonl:{folder / 't.jsonl'}"


def clips(folder: Path, seconds: dict[int, float], count: int = 30, text: str = "number {}") -> str:
    """Sounds of half a second, some of another length, as a spec."""
    lines = ["wav,text"]
    for i in range(count):
        samples = np.sin(np.arange(int(seconds.get(i, 0.5) * 16000)) / (7 + i)) * 0.3
        soundfile.write(folder / f"{i}.wav", samples, 16000)
        lines.append(f"{i}.wav,{text.format(i)}")
    (folder / "list.csv").write_text("\n".join(lines))
    return f"csv:{folder / 'list.csv'}"


def pretrain(tmp_path: Path, data: str) -> tuple[StageContext, Callable[[], Report]]:
    thinker = ThinkerConfig(
        vocab_size=400, width=32, layers=1, heads=2, kv_heads=1, head_width=16, ffn_width=48,
        max_positions=96,
    )  # fmt: skip
    config = pretrain_text.PretrainTextConfig(
        data=data, tokenizer_lines=100, thinker=thinker, context_tokens=64, loop=LOOP, eval_items=20
    )
    context = context_of(tmp_path, "pretrain_text", config)
    return context, lambda: pretrain_text.run(context)


def test_texts_longer_than_the_thinker_are_cut_and_counted_once(tmp_path: Path) -> None:
    context, run = pretrain(tmp_path, talks(tmp_path, 900))
    report = run()
    (line,) = said_in(context, "are cut")
    assert "20 of 40 conversations are longer than the 64 positions" in line
    assert "no answer in 10" in line and report.notes["cut"] == line
    assert report.metrics["text.loss"].n < 20


def test_questions_that_leave_no_room_to_answer_are_not_asked(tmp_path: Path) -> None:
    rows = [{"question": f"{i} " + "word " * 80 * (i % 2), "answer": "yes"} for i in range(60)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    context, run = pretrain(tmp_path, f"jsonl:{tmp_path / 'q.jsonl'}")
    report = run()
    held, asked = report.metrics["text.loss"].n, report.metrics["text.exact_match"].n
    assert 0 < asked < held
    (line,) = said_in(context, "leave no room to answer in 96 positions")
    assert f"{held - asked} of {held} held-out questions" in line


def test_texts_with_no_answer_left_are_refused_before_training(tmp_path: Path) -> None:
    rows = [{"question": f"{i} " + "word " * 900, "answer": "yes"} for i in range(40)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    context, run = pretrain(tmp_path, f"jsonl:{tmp_path / 'q.jsonl'}")
    with pytest.raises(InputError, match="no answer in 40; raise it"):
        run()
    assert not (context.work / "log.jsonl").exists()


def test_the_world_is_never_cut_to_the_context(tmp_path: Path) -> None:
    context, _ = pretrain(tmp_path, "world")
    assert pretrain_text.room(context.config) == 96


def test_clips_longer_than_the_tower_are_left_out(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = EncoderConfig(width=32, layers=1, heads=2, ffn_width=48)
    tower = AudioTowerConfig(n_mels=MelConfig().n_mels, channels=8, encoder=encoder, max_frames=25)
    spec = clips(tmp_path, dict.fromkeys((0, 1, 2, 3, 28, 29), 2.5) | {5: 2.0, 6: 1.98})
    config = train_audio_encoder.TrainAudioEncoderConfig(
        data=spec, audio=tower, loop=LOOP, eval_items=100
    )
    context = context_of(tmp_path, "train_audio_encoder", config, model)
    report = train_audio_encoder.run(context)
    # Of 30: six are too long, and so may one of just the tower's length be.
    assert "left out 7 of 30 rows that are too long" in (said := capfd.readouterr().err)
    assert "2.5 s of sound, but train_audio_encoder.audio.max_frames 25 has room for 2.0 s" in said
    measured = report.metrics["hearing.wer"].n, report.metrics["hearing.ctc_infeasible"].n
    assert sum(measured) == 23 and min(measured) > 0


def test_clips_and_texts_longer_than_the_talker_are_left_out(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    talker = TalkerConfig(
        source_width=32, width=32, layers=1, heads=2, kv_heads=1, head_width=16, ffn_width=48,
        max_progress=6, max_frames=16,
    )  # fmt: skip
    spec = clips(tmp_path, {0: 0.7, 29: 125.0}, text="{}")
    lines = (tmp_path / "list.csv").read_text().splitlines()
    lines[8] = "7.wav," + "word " * 600
    (tmp_path / "list.csv").write_text("\n".join(lines))
    config = train_talker.TrainTalkerConfig(data=spec, talker=talker, loop=LOOP, eval_items=100)
    context = context_of(tmp_path, "train_talker", config, model)
    report = train_talker.run(context)
    assert "left out 3 of 30 rows that are too long" in (said := capfd.readouterr().err)
    assert "0.7 s of sound, but train_talker.talker.max_frames 16 has room for 0.6 s" in said
    measured = report.metrics["speech.readback_wer"].n, report.metrics["speech.unalignable"].n
    assert sum(measured) == 27 and min(measured) > 0


def test_instruct_takes_what_fits_and_asks_each_held_out_row_once(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    items = []
    for i in range(40):
        Image.new("RGB", (32, 32), (6 * i, 0, 0)).save(tmp_path / f"{i}.png")
        items.append({"image": f"{i}.png", "caption": "word " * (1 + 900 * (i % 2))})
    (tmp_path / "c.json").write_text(json.dumps(items))
    mixture = instruct.InstructMixture(
        pictures=f"json:{tmp_path / 'c.json'}",
        speech=clips(tmp_path, {0: 45.0, 29: 45.0, 9: 125.0}),
        text=talks(tmp_path, 900),
    )
    loop = LoopConfig(steps=8, batch_size=4)  # each sample of two groups
    config = instruct.InstructConfig(
        mixture=mixture, loop=loop, eval_items=30, warm_start_items=10, spell=False
    )
    context = context_of(tmp_path, "instruct", config, model)
    report = instruct.run(context)
    said = capfd.readouterr().err
    assert "left out 3 of 30 rows that are too long" in said and "45.0 s of sound take 563" in said
    for name, cut in (("t.jsonl", "20 of 40"), ("c.json", "20 of 40")):
        (line,) = said_in(context, name)
        assert f"{cut} conversations are longer than the 512 positions" in line
        assert line in report.notes.values()
    few = [report.metrics[f"{name}.right"].n for name in ("caption", "write_down", "text")]
    assert all(0 < n < 12 for n in few)
    assert report.metrics["text.loss_ratio"].n < 12
