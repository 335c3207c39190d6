"""Epochs: durations as people write them, and how many updates fit."""

import pytest
from typer.testing import CliRunner

from lumoomni.cli import app
from lumoomni.errors import InputError
from lumoomni.recipes.epoch import seconds_of, size_epoch
from lumoomni.recipes.plan import plan
from lumoomni.recipes.plan_report import Question, study
from tests.recipes.tiny import tiny


def test_durations() -> None:
    written = {"1h": 3600, "30m": 1800, "90s": 90, "1h30m": 5400, "0.5h": 1800, " 2H ": 7200}
    assert {text: seconds_of(text) for text in written} == written
    for wrong in ("", "1", "h", "1d", "1x", "30m1h", "-1h", "0s", "1 h x"):
        with pytest.raises(InputError, match="is no duration; write 1h, 30m, 90s"):
            seconds_of(wrong)


def test_as_many_updates_as_fit() -> None:
    made = size_epoch("align_connector", wanted=3600, update=0.25, samples=64)
    assert (made.updates, made.samples, made.seconds) == (14_400, 921_600, 3600)
    assert made.setting == "align_connector.loop.steps=14400"
    rounded = size_epoch("x", wanted=10, update=3, samples=2)
    assert (rounded.updates, rounded.samples, rounded.seconds) == (3, 6, 9)
    with pytest.raises(InputError, match=r"one update of x takes 11\.0 s, longer than .* 10 s"):
        size_epoch("x", wanted=10, update=11, samples=2)


def test_an_estimated_epoch_takes_as_long_as_is_wanted() -> None:
    recipe = tiny()
    (made,) = study(recipe, Question(gpu="L4", epoch="90s", stage="align_connector")).epochs
    longer = recipe.override([made.setting])
    (one,) = plan(longer, only="align_connector")
    assert 90 - one.seconds("l4") <= 3600 * one.hours("l4") <= 90
    assert made.samples == one.updates * one.batch * one.accumulate and "l4" in made.rate


def test_bad_questions_are_one_sentence() -> None:
    for more, said in (
        (["--epoch", "soon", "--gpu", "l4"], "--epoch 'soon' is no duration"),
        (["--epoch", "1h"], "add --measure or --gpu NAME"),
    ):
        shown = CliRunner().invoke(app, ["plan", "nano", *more])
        assert shown.exit_code == 2 and said in shown.output, shown.output
        assert len(shown.output.strip().splitlines()) == 1
