"""`lumo export`: a folder, one JSON object, and what ends with two."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lumoomni.cli import app
from lumoomni.model.thinker import Thinker
from tests.tiny import text_codec
from tests.tiny_rows import thinker, write_rows

pytestmark = pytest.mark.slow
RUN = CliRunner()


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("export") / "build", thinker(), lora=True)


def test_it_teaches_and_exports(build: Path, tmp_path: Path) -> None:
    shown = RUN.invoke(app, ["export", "--help"])
    assert shown.exit_code == 0 and "--format hf" in shown.stdout
    out, size = tmp_path / "out", text_codec().vocab_size
    made = RUN.invoke(app, ["export", str(build), str(out), "--format", "hf"])
    assert made.exit_code == 0, made.output
    said = f"exported {size + 80} ids with adapters of instruct and 80 new rows into"
    assert made.stdout.startswith(said)
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "generation_config.json", "README.md"),
        *("tokenizer.json", "tokenizer_config.json", "token_space.json", "token_space.sha256"),
    }
    words = ["export", str(build / "pretrain_text"), str(tmp_path / "plain"), "--json"]
    plain = json.loads(RUN.invoke(app, words).stdout)
    assert plain == {
        "out": str(tmp_path / "plain"),
        "format": "hf",
        "ids": size,
        "rows": 0,
        "adapters": None,
        "dtype": "float32",
    }


def test_what_cannot_be_exported_ends_with_two(build: Path, tmp_path: Path) -> None:
    shape = replace(thinker().config, qk_norm=False)
    bent = write_rows(tmp_path / "bent", Thinker(shape).eval())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    for words, said in (
        ([str(bent), str(tmp_path / "x")], "qk_norm=False"),
        ([str(build), str(tmp_path / "full")], "is not empty"),
        ([str(tmp_path / "none"), str(tmp_path / "x")], "there is no"),
        ([str(build), str(tmp_path / "x"), "--format", "onnx"], "hf"),
    ):
        ended = RUN.invoke(app, ["export", *words])
        assert ended.exit_code == 2 and said in ended.stderr, (words, ended.output)
    assert not (tmp_path / "x").exists() and list((tmp_path / "full").iterdir())
