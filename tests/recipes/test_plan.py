"""Plans: what fake tensors count is what real ones keep, and wrong questions are refused."""

import json

import pytest
import torch
from typer.testing import CliRunner

from lumoomni.cli import app
from lumoomni.errors import InputError
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.recipes import resolve
from lumoomni.recipes.plan import GPUS, StagePlan, _forward, fits, plan, shown

SHAPE = ThinkerConfig(
    vocab_size=100, width=32, layers=2, heads=2, kv_heads=1, head_width=16, ffn_width=48
)


def kept() -> tuple[int, float]:
    thinker = Thinker(SHAPE)
    x = torch.zeros(3, 40, 32, requires_grad=True)
    return _forward(lambda: thinker(x).hidden, grows=True)


def test_fake_tensors_count_as_real_ones() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    real = kept()
    with FakeTensorMode():
        fake = kept()
    assert real == fake and real[0] > 3 * 40 * 32 * 4 and real[1] > 0


def test_nothing_is_kept_where_nothing_grows() -> None:
    thinker = Thinker(SHAPE).requires_grad_(False)
    found = _forward(lambda: thinker(torch.zeros(3, 40, 32)).hidden, grows=False)
    assert found[0] == 0 and found[1] > 0


def test_muomnis_text_stage_fits_twelve_gigabytes() -> None:
    """The largest stage of the recipe; `lumo plan muomni` shows the others."""
    recipe = resolve("muomni")
    only = tuple(s for s in recipe.stages if s.name in ("pretrain_text", "train_vision_encoder"))
    made = plan(type(recipe)(name="part", stages=only))
    text = next(one for one in made if one.stage == "pretrain_text")
    assert text.trained == 20_319_744 and text.gradients == text.weights == 4 * text.trained
    assert 1e9 < text.total < 12e9 and fits(made, "3060")["fits"]


def test_a_plan_that_does_not_fit_says_so() -> None:
    big = StagePlan(
        stage="x",
        trained=1,
        frozen=1,
        batch=1,
        accumulate=1,
        updates=1000,
        weights=13 * 10**9,
        gradients=0,
        optimizer=0,
        activations=0,
        logits=0,
        flops=1e15,
    )
    assert not fits([big], "3060")["fits"] and fits([big], "4090")["fits"]
    assert big.hours("3060") == pytest.approx(1e18 / (GPUS["3060"][0] * 0.4) / 3600)
    columns, rows = shown([big], "3060")
    assert "DOES NOT FIT" in columns[-1] and len(columns) == len(rows[0])


def test_unknown_gpus_and_unnamed_models_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean"):
        fits([], "4091")
    for command in (["plan", "nano", "--gpu", "abacus"], ["plan", "qwen3-8b"]):
        shown_ = CliRunner().invoke(app, command)
        assert shown_.exit_code == 2, shown_.output


def test_the_command_prints_json() -> None:
    shown_ = CliRunner().invoke(
        app, ["plan", "nano", "instruct.loop.batch_size=1", "--gpu", "l4", "--json"]
    )
    assert shown_.exit_code == 0, shown_.output
    found = json.loads(shown_.output)
    assert found["gpu"]["fits"] and "instruct" in {s["stage"] for s in found["stages"]}
