"""Plans: what fake tensors count is what real ones keep, and wrong questions are refused."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from typer.testing import CliRunner

from lumoomni.cli import app
from lumoomni.codecs.image_vq import ImageCodec
from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.errors import InputError
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.pipeline import Recipe
from lumoomni.recipes import resolve
from lumoomni.recipes.gpus import GPUS, find_gpu, gpu_called
from lumoomni.recipes.loads import loads_of
from lumoomni.recipes.part_loads import shapes_of
from lumoomni.recipes.plan import (
    StagePlan,
    _forward,
    advice,
    fits,
    named_parameters,
    plan,
    trained_stages,
)
from lumoomni.recipes.plan_measure import NoiseTask
from lumoomni.recipes.plan_report import shown
from lumoomni.recipes.plan_rest import rest_of
from lumoomni.train.loop import LoopConfig
from lumoomni.train.optim import Optimizers
from tests.recipes.tiny import tiny

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


def big(**changes: float) -> StagePlan:
    given = {
        "trained": 1,
        "frozen": 1,
        "batch": 8,
        "accumulate": 3,
        "updates": 1000,
        "tokens": 7,
        "weights": 4 * 10**9,
        "gradients": 10**9,
        "optimizer": 2 * 10**9,
        "activations": 16 * 10**9,
        "logits": 10**9,
        "flops": 1e15,
        **changes,
    }
    return StagePlan(stage="x", **given)  # type: ignore[arg-type]


def test_a_plan_that_does_not_fit_says_so() -> None:
    large = big(weights=13 * 10**9, activations=0, gradients=0, optimizer=0, logits=0)
    assert not fits([large], "3060")["fits"] and fits([large], "4090")["fits"]
    columns, rows = shown([large], "3060")
    assert "DOES NOT FIT" in columns[-1] and len(columns) == len(rows[0])
    (said,) = fits([big()], "3060")["advice"]
    assert said.startswith("x needs 24.00 GB and 3060 has 12.00 GB: ")
    assert not fits([big()], "h100")["advice"]


def test_advice_that_is_followed_fits() -> None:
    """8 GB stand, 2 GB a sample; of 24 an update 2 fit at a time, 3 would not leave room."""
    said = advice(big(), 12.5e9, "it")
    assert "x.loop.batch_size=2 x.loop.accumulate=12," in said
    assert not advice(big(batch=2, accumulate=12, activations=4 * 10**9), 12.5e9, "it")
    assert "activation checkpointing" in advice(big(recomputable=True), 9e9, "it")
    assert "or shorten its inputs" in (said := advice(big(), 9e9, "it"))
    assert "checkpointing" not in said  # of what would be refused, or is done already
    assert "8.00 GB" not in advice(big(), 6e9, "it")
    assert "alone take 7.00 GB, so no batch_size" in advice(big(), 6e9, "it")


def test_hours_are_arithmetic_and_the_optimisers_traffic() -> None:
    one, gpu = big(), GPUS["3060"]
    moved = 2 * (2 * one.gradients + one.optimizer)
    seconds = one.flops / (0.4 * gpu.flops) + moved / gpu.bandwidth
    assert one.seconds("3060") == pytest.approx(seconds)
    assert one.hours("3060") == pytest.approx(1000 * seconds / 3600)


def test_gpus_are_known_by_what_drivers_call_them() -> None:
    for name in ("h200", "h100", "a100", "4090", "3090", "l4", "t4"):
        gpu = find_gpu(name.upper())
        assert 1e12 < gpu.flops < 1e15 and 1e11 < gpu.bandwidth < 1e13 and gpu.memory >= 12e9
    called = {
        "NVIDIA H200": "h200",
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H100 PCIe": None,
        "NVIDIA A100-SXM4-80GB": "a100",
        "NVIDIA GeForce RTX 4090": "4090",
        "NVIDIA GeForce RTX 4090 Laptop GPU": None,
        "NVIDIA GeForce RTX 3060 Ti": None,
        "NVIDIA L4": "l4",
        "NVIDIA L40S": None,
        "Tesla T4": "t4",
    }
    assert {name: gpu_called(name) for name in called} == called


def test_the_heads_products_are_counted() -> None:
    """All positions but the last, forward and the states' gradient and the head's: 6 N V D."""
    small, large = (
        plan(tiny().override([f"pretrain_text.thinker.vocab_size={size}"]), only="pretrain_text")[0]
        for size in (64, 1064)
    )
    rows = large.batch * (large.tokens - 1) * large.accumulate
    assert large.flops - small.flops == 6 * rows * 1000 * 32
    assert large.logits - small.logits == 2 * rows // large.accumulate * 1000 + 4 * 1000 * 32


def test_optimizer_bytes_are_those_that_it_keeps() -> None:
    recipe = tiny()
    configs = {stage.name: stage.config for stage in recipe.stages}
    for one in plan(recipe):
        loads = loads_of(one.stage, configs, shapes_of(configs))
        optimizers = Optimizers(named_parameters(loads), configs[one.stage].optim)
        NoiseTask(loads, 1).loss(0).total.backward()
        optimizers.step()
        states = optimizers.tensors().items()
        kept = sum(t.nbytes for name, t in states if not name.endswith(".step"))
        assert one.optimizer == kept, one.stage


def test_every_stage_is_listed_with_what_can_be_told() -> None:
    for name in ("nano", "qwen3-0.6b"):
        recipe = resolve(name)
        listed = {*trained_stages(recipe), *(one.stage for one in rest_of(recipe))}
        assert listed == set(recipe.names())
    recipe = resolve("nano").override(["tokenize.manifest.world.count=3"])
    found = {one.stage: one for one in rest_of(recipe.override(["tokenize.manifest.world.held=2"]))}
    # As many as the stage makes of such a world: 9 to train on and 10 held out, both ways.
    assert "19 pictures and sounds for 38 rows" in found["tokenize"].does
    codec = ImageCodec(recipe.stage("train_image_codec").config.codec)
    speech = SpeechCodec(recipe.stage("train_codecs").config.speech)
    count = sum(p.numel() for part in (codec, speech) for p in part.parameters())
    assert found["build_token_space"].frozen == found["tokenize"].frozen == count
    assert found["sweep_connector"].updates == 6 * 150
    made = plan(recipe, only="train_image_codec")[0]
    assert made.trained == sum(p.numel() for p in codec.parameters()) and made.flops > 1e9
    bare = recipe.override(["build_token_space.pictures=false"])
    assert next(r for r in rest_of(bare) if r.stage == "tokenize").frozen < count


def test_a_stage_that_nobody_counts_says_its_updates_and_no_more() -> None:
    @dataclass(frozen=True)
    class Strange:
        loop: LoopConfig

    stage = resolve("nano").stages[0]
    odd = replace(stage, name="odd", config=Strange(LoopConfig(steps=77, batch_size=1)))
    plain = replace(stage, name="plain", config=SHAPE)
    found = rest_of(Recipe(name="x", stages=(stage, odd, plain)))
    assert [(one.stage, one.updates) for one in found] == [("odd", 77), ("plain", None)]
    assert "77 updates" in found[0].does and "is not counted" in found[1].does


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 4090"):
        fits([], "4091")
    for command, said in (
        (["plan", "nano", "--gpu", "abacus"], "there is no GPU 'abacus'"),
        (["plan", "nano", "--stage", "instuct"], "did you mean instruct"),
        (
            ["plan", "nano", "--stage", "sweep_connector"],
            "'sweep_connector'; did you mean align_connector",
        ),
        (["plan", "qwen3-8b"], "no llm was named"),
    ):
        shown_ = CliRunner().invoke(app, command)
        assert shown_.exit_code == 2 and said in shown_.output, shown_.output


def test_the_command_prints_json() -> None:
    shown_ = CliRunner().invoke(
        app, ["plan", "nano", "instruct.loop.batch_size=1", "--gpu", "l4", "--json"]
    )
    assert shown_.exit_code == 0, shown_.output
    found = json.loads(shown_.output)
    assert {"build_token_space", "tokenize"} <= {one["stage"] for one in found["rest"]}
    assert found["gpu"]["fits"] and "align_connector" in {s["stage"] for s in found["stages"]}
