"""`lumo rows`: packed, looked at and merged; what does not fit ends with two and both values."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lumoomni.cli import app
from lumoomni.infer.base_model import open_base
from lumoomni.infer.row_package import load_rows
from lumoomni.model.thinker import Thinker
from lumoomni.uti.space_file import save_space
from tests.tiny import text_codec
from tests.tiny_rows import space, thinker, write_rows

pytestmark = pytest.mark.slow
RUN = CliRunner()


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "build", thinker(tied=False))


def test_every_verb_teaches() -> None:
    for verb in ("pack", "apply"):
        shown = RUN.invoke(app, ["rows", verb, "--help"])
        assert shown.exit_code == 0 and f"lumo rows {verb} " in shown.stdout


def test_pack_look_and_merge(build: Path, tmp_path: Path) -> None:
    first, size = str(tmp_path / "packed"), text_codec().vocab_size
    made = RUN.invoke(app, ["rows", "pack", str(build), first])
    assert made.exit_code == 0, made.output
    assert f"packed rows {size} .. {size + 79} of width 32 (embeddings and head)" in made.stdout
    shown = RUN.invoke(app, ["rows", "apply", str(build), first])
    assert shown.exit_code == 0 and "fits pretrain_text" in shown.stdout
    assert f"{size + 80} ids in all" in shown.stdout and space().abi in shown.stdout
    merged = str(tmp_path / "merged")
    done = RUN.invoke(app, ["rows", "apply", str(build), first, "--merge", merged, "--json"])
    facts = json.loads(done.stdout)
    assert done.exit_code == 0 and facts["merged"] == merged
    assert (facts["row_start"], facts["row_end"], facts["ids"]) == (size, size + 80, size + 80)
    assert facts["base"] == open_base(build).hash and facts["abi"] == space().abi
    again = RUN.invoke(app, ["rows", "pack", str(build), str(tmp_path / "b"), "--json"])
    assert json.loads(again.stdout)["base"] == load_rows(Path(first)).facts.base


def test_what_does_not_fit_ends_with_two(build: Path, tmp_path: Path) -> None:
    packed = str(tmp_path / "packed")
    assert RUN.invoke(app, ["rows", "pack", str(build), packed]).exit_code == 0
    other = write_rows(tmp_path / "other", thinker(tied=False, seed=1))
    shape = replace(thinker(tied=False).config, qk_norm=False)
    bent = write_rows(tmp_path / "bent", Thinker(shape).eval())
    apart = RUN.invoke(app, ["rows", "apply", str(other), packed])
    assert apart.exit_code == 2 and apart.stdout == ""
    assert open_base(other).hash[:12] in apart.stderr and apart.stderr.count("\n") == 1
    assert open_base(build).hash[:12] in apart.stderr
    save_space(tmp_path / "space", space(17))
    laid = ["rows", "apply", str(build / "pretrain_text"), packed]
    assert RUN.invoke(app, laid).exit_code == 0
    strange = RUN.invoke(app, [*laid, "--space", str(tmp_path / "space")])
    assert strange.exit_code == 2 and space(17).abi[:12] in strange.stderr
    assert space().abi[:12] in strange.stderr
    # Rows fit a Thinker that nobody else has words for; only the merged folder cannot be.
    assert RUN.invoke(app, ["rows", "pack", str(bent), str(tmp_path / "rows")]).exit_code == 0
    words = ["rows", "apply", str(bent), str(tmp_path / "rows")]
    assert RUN.invoke(app, words).exit_code == 0
    refused = RUN.invoke(app, [*words, "--merge", str(tmp_path / "merged")])
    assert refused.exit_code == 2 and "qk_norm=False" in refused.stderr
    assert not (tmp_path / "merged").exists() and not list(tmp_path.glob(".merged*"))
    for words, said in (
        (["rows", "pack", str(build), packed], "is not empty"),
        (["rows", "pack", str(build / "pretrain_text"), str(tmp_path / "x")], "no rows.json"),
        (["rows", "apply", str(build), str(tmp_path)], "is no package of rows"),
        (["rows", "apply", str(tmp_path / "none"), packed], "there is no"),
    ):
        ended = RUN.invoke(app, words)
        assert ended.exit_code == 2 and said in ended.stderr, (words, ended.output)
