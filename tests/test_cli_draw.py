"""`lumo draw` and `lumo sound` on a tiny build: files, what is said, and refusals."""

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lumoomni import cli_draw
from lumoomni.cli import app
from lumoomni.infer.compose import ComposeConfig, compose
from lumoomni.infer.draw import PICTURE, SOUND, Artist, DrawConfig
from lumoomni.infer.sampling import SamplingConfig
from lumoomni.media.audio import load_audio
from lumoomni.media.image import load_image
from lumoomni.media.sheet import sheet
from lumoomni.pipeline import build
from lumoomni.runtime import Progress
from lumoomni.train.loop import LoopConfig
from tests.stages.token_build import ROWS, TOKENS, recipe

pytestmark = pytest.mark.slow
RUN = CliRunner()
ONE = LoopConfig(steps=1, batch_size=2)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("draw") / "build"
    making = replace(TOKENS.making, pictures=2, sounds=2)
    small = recipe(replace(ROWS, loop=ONE), replace(TOKENS, loop=ONE, making=making))
    build(small, out, progress=Progress(silent=True), device="cpu")
    return out


def called(*words: object) -> tuple[int, str]:
    done = RUN.invoke(app, [str(word) for word in words])
    return done.exit_code, done.output


def test_pictures_stand_side_by_side_and_repeat_with_their_seed(
    built: Path, tmp_path: Path
) -> None:
    code, said = called("draw", built, "a red circle", tmp_path / "a.png", "--n", 3, "--json")
    assert code == 0, said
    facts = json.loads(said)
    assert facts["made"] == 3 and facts["ids"] == [16, 16, 16]
    first = load_image(tmp_path / "a.png")
    assert first.shape == (32, 96, 3)
    for name, seed in (("b", 0), ("c", 1)):
        out = tmp_path / f"{name}.png"
        assert called("draw", built, "a red circle", out, "--n", 3, "--seed", seed)[0] == 0
    assert (load_image(tmp_path / "b.png") == first).all()
    assert (load_image(tmp_path / "c.png") != first).any()


def test_guidance_and_temperature_reach_the_model(built: Path, tmp_path: Path) -> None:
    made = {}
    # An untrained model hardly hears its prompt, so it takes much guidance to show.
    for name, more in (("plain", ()), ("cfg", ("--cfg", 300)), ("greedy", ("--temperature", 0))):
        out = tmp_path / f"{name}.png"
        assert called("draw", built, "a red circle", out, *more)[0] == 0
        made[name] = load_image(out).tobytes()
    assert len(set(made.values())) == 3
    artist = Artist.open(built)
    how = ComposeConfig(sampling=SamplingConfig(), guidance=1.0)
    request = artist.request("image", artist.uti.encode("a red circle"))
    (wanted,) = compose(artist.model, artist.uti.grammar, [request], how)
    (drawn,) = artist.draw(["a red circle"], 1, DrawConfig(temperature=0.0))
    assert drawn.ids.tolist() == wanted.ids[1:-1]


def test_a_sound_that_is_cut_says_so(built: Path, tmp_path: Path) -> None:
    shown = RUN.invoke(
        app, ["sound", str(built), "a beep", str(tmp_path / "s.wav"), "--most", "4", "--json"]
    )
    assert shown.exit_code == 0 and json.loads(shown.stdout)["cut"] == 1
    assert "1 of 1 did not come to an end within 4 ids and were cut" in shown.stderr


def test_sounds_are_files_one_each(built: Path, tmp_path: Path) -> None:
    code, said = called("sound", built, "a beep", tmp_path / "s.wav", "--n", 2)
    assert code == 0 and re.search(r"s_0\.wav, .*s_1\.wav: 2 made in \d", said.replace("\n", ""))
    assert all(load_audio(tmp_path / f"s_{i}.wav").seconds > 0 for i in range(2))
    assert called("sound", built, "a beep", tmp_path / "one.wav")[0] == 0
    assert (tmp_path / "one.wav").is_file()


def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(built: Path, tmp_path: Path) -> None:
    for words, why in (
        (("draw", built, "x", tmp_path / "a.jpg"), "ends in .jpg"),
        (("sound", built, "x", tmp_path / "a.png"), "ends in .png"),
        (("draw", built / "instruct", "x", tmp_path / "a.png"), "holds no rows"),
        (("draw", tmp_path / "none", "x", tmp_path / "a.png"), "nothing"),
        (("draw", built, "word " * 600, tmp_path / "a.png"), "positions"),
    ):
        code, said = called(*words)
        assert code == 2 and why in said, (words, said)
    assert not list(tmp_path.glob("*.png"))


def test_a_build_that_cannot_draw_yet_says_which_stage_is_missing(
    built: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.json").write_text((built / "recipe.json").read_text())
    code, said = called("draw", tmp_path, "x", tmp_path / "a.png")
    assert code == 2 and "--until pretrain_tokens" in said.replace("\n", " ")


def test_a_sheet_holds_every_picture_with_its_words(built: Path) -> None:
    artist = Artist.open(built)
    drawn = [one.made for one in artist.draw(["a", "b"], 4, DrawConfig())]
    made = sheet(drawn, ["a red circle above a small blue square"] * 8, columns=3, side=64)  # type: ignore[arg-type]
    assert made.shape[1] == 3 * 68 and made.shape[0] > 3 * 64
    assert (made[:64, :64] == drawn[0].repeat(2, 0).repeat(2, 1)).all()  # type: ignore[union-attr]
    assert (made[66:78, :64] < 128).any()  # words
    with pytest.raises(ValueError, match="no sheet"):
        sheet([], [])


@pytest.mark.parametrize(("verb", "best"), [(cli_draw.draw, PICTURE), (cli_draw.sound, SOUND)])
def test_verbs_choose_as_chats_and_gates_do(verb: Callable, best: DrawConfig) -> None:
    given = inspect.signature(verb).parameters
    chosen = tuple(given[name].default for name in ("temperature", "cfg", "tries"))
    assert chosen == (best.temperature, best.guidance, best.tries)
