"""Sweeps: which runs, with which settings, and what is no run."""

from dataclasses import replace

import pytest

from lumoomni.errors import InputError
from lumoomni.recipes.nano import nano
from lumoomni.stages.sweep_connector import (
    Choice,
    SweepConnectorConfig,
    checks,
    choices,
    settings_of,
)

CONFIG: SweepConnectorConfig = nano().stage("sweep_connector").config


def test_a_grid_or_a_list_and_nothing_twice() -> None:
    grid = replace(CONFIG, lr=(1e-3, 2e-3, 1e-3), vision_ln=(True, False))
    assert [c.name for c in choices(grid)] == [
        "lr=0.001,vision_ln=true",
        "lr=0.001,vision_ln=false",
        "lr=0.002,vision_ln=true",
        "lr=0.002,vision_ln=false",
    ]
    listed = replace(CONFIG, listed=("3e-4/true", "0.0003/true", "1/false"))
    assert choices(listed) == (Choice(lr=3e-4, vision_ln=True), Choice(lr=1.0, vision_ln=False))
    wanted = next(check for check in checks(listed) if check.metric == "sweep.runs")
    assert wanted.threshold == 2


def test_rates_go_along_and_all_else_stays() -> None:
    made = settings_of(CONFIG, Choice(lr=CONFIG.align.optim.lr * 3, vision_ln=True))
    assert made.vision_ln and made.optim.lr == pytest.approx(3 * CONFIG.align.optim.lr)
    assert made.optim.matrix_lr == pytest.approx(3 * CONFIG.align.optim.matrix_lr)
    assert made.loop == CONFIG.align.loop and made.data == CONFIG.align.data


@pytest.mark.parametrize("text", ["1e-3", "fast/true", "1e-3/maybe", ""])
def test_what_is_no_run_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no run of a sweep"):
        choices(replace(CONFIG, listed=(text,)))


def test_an_empty_sweep_is_refused() -> None:
    with pytest.raises(InputError, match="has no runs"):
        choices(replace(CONFIG, lr=()))
