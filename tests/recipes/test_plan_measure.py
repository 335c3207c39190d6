"""What is measured is what was planned: the same parts, really trained. No time decides here."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from lumoomni import shapes
from lumoomni.cli import app
from lumoomni.errors import InputError
from lumoomni.model import routed
from lumoomni.model.hf_config import config_to_hf
from lumoomni.model.lora import LoraSettings
from lumoomni.model.thinker import ThinkerConfig
from lumoomni.pipeline import Recipe
from lumoomni.recipes import plan_measure, resolve
from lumoomni.recipes.loads import loads_of
from lumoomni.recipes.part_loads import Load, rest, shapes_of
from lumoomni.recipes.plan import named_parameters, plan, trained_stages
from lumoomni.recipes.plan_measure import (
    MeasureConfig,
    MemoryWatch,
    NoiseTask,
    measure,
    time_updates,
)
from lumoomni.runtime import Progress
from lumoomni.train import loop as training
from tests.recipes.tiny import TINY, tiny

CPU = torch.device("cpu")
SHORT = MeasureConfig(warmup=1, updates=2, least=1, seconds=math.inf, device="cpu")
QWEN = ThinkerConfig(
    vocab_size=96, width=24, layers=2, heads=2, kv_heads=1, head_width=12, ffn_width=32
)


@pytest.fixture
def adopted(tmp_path: Path) -> Recipe:
    """Folders with a config.json and nothing else, for a recipe on other people's models."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    shape = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    transformers.SiglipVisionConfig(**shape).save_pretrained(tmp_path / "vision")
    (tmp_path / "llm").mkdir()
    hf = config_to_hf(QWEN, torch.float32)
    (tmp_path / "llm" / "config.json").write_text(json.dumps(hf))
    small = [f"align_connector.{x}" for x in ("latents=6", "width=16", "heads=2", "mlp_ratio=1")]
    small += ["align_connector.context=20", "instruct.context=20", "instruct.loop.batch_size=2"]
    small += ["align_connector.loop.batch_size=3", "align_connector.loop.accumulate=2"]
    small += [f"llm={tmp_path / 'llm'}", f"vision={tmp_path / 'vision'}"]
    return resolve("qwen3-0.6b").override([*small, "instruct.loop.accumulate=2"])


def all_loads(recipe: Recipe) -> dict[str, list[Load]]:
    configs = {stage.name: stage.config for stage in recipe.stages}
    shapes = shapes_of(configs)
    return {name: loads_of(name, configs, shapes) for name in trained_stages(recipe)}


def compared(recipe: Recipe) -> list[str]:
    """The stages that were measured and found to be what was planned."""
    plans = plan(recipe)
    found = measure(recipe, plans, SHORT)
    assert [one.stage for one in found] == trained_stages(recipe)
    for one, planned in zip(found, plans, strict=True):
        assert (one.trained, one.frozen) == (planned.trained, planned.frozen), one.stage
        assert 0 < one.fastest <= one.seconds <= one.slowest and one.updates == 2
        rate = planned.batch * planned.accumulate / one.seconds
        assert one.samples_per_second == pytest.approx(rate)
        assert one.tokens_per_second == pytest.approx(rate * planned.tokens)
        assert one.computed_memory == planned.total and one.mfu is None and one.device == "cpu"
    return [one.stage for one in found]


def test_every_stage_of_nano_is_measured() -> None:
    assert len(compared(tiny())) == 11


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"thinker_rate": 0.5}, ["thinker", "rows", "maker", "before"]),
        ({"routed": False, "hold_weight": 0.0}, ["thinker", "rows"]),
        ({"routed": False, "lora": LoraSettings(rank=2)}, ["thinker", "rows", "before"]),
    ],
)
def test_every_way_of_learning_tokens_is_measured(
    settings: dict[str, Any], parts: list[str]
) -> None:
    if "lora" in settings:
        pytest.importorskip("peft")
    recipe = tiny()
    stage = recipe.stage("pretrain_tokens")
    other = replace(stage, config=replace(stage.config, **{"thinker_rate": 1.0, **settings}))
    recipe = replace(recipe, stages=tuple(other if s is stage else s for s in recipe.stages))
    configs = {one.name: one.config for one in recipe.stages}
    loads = loads_of("pretrain_tokens", configs, shapes_of(configs))
    assert [one.name for one in loads] == parts
    (planned,) = plan(recipe, only="pretrain_tokens")
    (found,) = measure(recipe, [planned], SHORT)
    assert (found.trained, found.frozen) == (planned.trained, planned.frozen)
    NoiseTask(loads, 2).loss(0).total.backward()
    for name, parameter in named_parameters(loads):
        assert parameter.grad is not None, name


def test_adopted_parts_are_measured_without_their_weights(adopted: Recipe) -> None:
    assert compared(adopted) == ["align_connector", "instruct"]
    packed = adopted.override(["align_connector.pack=24", "align_connector.cache_features=true"])
    assert compared(packed) == ["align_connector", "instruct"]


def test_packed_rows_of_adapters_are_planned_as_long_as_they_are(adopted: Recipe) -> None:
    plain = adopted.override(["instruct.context=64"])
    packed = plain.override(["instruct.pack=256", "instruct.cache_features=true"])
    configs = [{one.name: one.config for one in r.stages} for r in (plain, packed)]
    loads = [{x.name: x for x in loads_of("instruct", c, shapes_of(c))} for c in configs]
    few, many = (one["thinker"].tokens for one in loads)
    assert many > few and loads[1]["vision"].run is rest
    assert compared(packed) == ["align_connector", "instruct"]


def test_a_fresh_linear_connector_is_measured() -> None:
    """As in `muomni`, where nothing was aligned."""
    recipe = resolve("muomni").override([x for x in TINY if not x.startswith("align_connector")])
    kept = [s for s in recipe.stages if s.name != "train_talker"]
    kept[-1] = replace(kept[-1], parents=())
    assert "instruct" in compared(replace(recipe, stages=tuple(kept)))


def test_instruct_trains_what_the_seed_states() -> None:
    """Its Thinker without the token table, and its two connectors (`lumo params muomni`)."""
    recipe = resolve("muomni")
    configs = {stage.name: stage.config for stage in recipe.stages}
    with FakeTensorMode():
        loads = loads_of("instruct", configs, shapes_of(configs))
    trained = sum(p.numel() for _, p in named_parameters(loads))
    assert trained == 20_319_744 - 32_000 * 256 + 33_024 + 49_408


def test_operations_are_those_of_a_real_forward_and_backward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exactly, but for the first layer's inputs, pictures and sound, which need no gradient, and
    for rows that are filled up: few, but not in so small a recipe."""
    for module in (shapes, routed):
        monkeypatch.setattr(module, "ROWS", 1)
    recipe = tiny()
    loads, found = all_loads(recipe), {}
    for one in plan(recipe):
        counter = FlopCounterMode(display=False)
        with counter:
            NoiseTask(loads[one.stage], 2).loss(0).total.backward()
        found[one.stage] = counter.get_total_flops() * one.accumulate / one.flops
    assert all(found[x] == 1 for x in ("pretrain_text", "train_talker", "train_rows"))
    assert found["pretrain_tokens"] == 1
    assert all(0.9 < share <= 1 for share in found.values()), found


def test_all_that_trains_gets_a_gradient_and_nothing_else(adopted: Recipe) -> None:
    for recipe in (tiny(), adopted):
        for stage, loads in all_loads(recipe).items():
            NoiseTask(loads, 2).loss(0).total.backward()
            named = dict(named_parameters(loads))
            silent = [name for name, p in named.items() if p.grad is None]
            assert named and not silent, (stage, silent)
            ours = {id(p) for p in named.values()}
            others = [p for load in loads for p in load.module.parameters() if id(p) not in ours]
            assert all(p.grad is None for p in others), stage


def test_updates_move_what_trains_alone(adopted: Recipe) -> None:
    stage = adopted.stage("instruct").config
    loads = all_loads(adopted)["instruct"]
    before = [p.detach().clone() for load in loads for p in load.module.parameters()]
    optim = replace(stage.optim, lr=0.1, warmup=0)
    quiet = Progress(silent=True)
    times = time_updates("instruct", loads, stage.loop, optim, SHORT, quiet, CPU)
    assert len(times) == SHORT.updates and min(times) > 0
    after = [p for load in loads for p in load.module.parameters()]
    moved = sum(p.numel() for p, old in zip(after, before, strict=True) if not p.equal(old))
    assert 0 < moved <= sum(p.numel() for _, p in named_parameters(loads))
    frozen = [old for p, old in zip(after, before, strict=True) if not p.requires_grad]
    assert all(p.equal(old) for p, old in zip(_frozen(loads), frozen, strict=True))


def test_settings_that_a_stage_takes_can_be_measured() -> None:
    """Echoes, and layers computed again where the Thinker itself is frozen."""
    recipe = tiny()
    for name in ("pretrain_text", "align_connector"):
        stage = recipe.stage(name).config
        loop = replace(stage.loop, checkpointing=True, echo=2)
        loads = all_loads(recipe)[name]
        quiet = Progress(silent=True)
        assert len(time_updates(name, loads, loop, stage.optim, SHORT, quiet, CPU)) == SHORT.updates


def _frozen(loads: list[Load]) -> list[torch.Tensor]:
    return [p for load in loads for p in load.module.parameters() if not p.requires_grad]


def test_it_stops_when_enough_was_seen_and_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a measurement was saved")

    monkeypatch.setattr(training, "save_checkpoint", refuse)
    stage = tiny().stage("train_codecs").config
    for seconds, counted in ((0.0, 3), (math.inf, 5)):
        config = MeasureConfig(warmup=2, updates=5, least=3, seconds=seconds)
        loads = all_loads(tiny())["train_codecs"]
        quiet = Progress(silent=True)
        times = time_updates("x", loads, stage.loop, stage.optim, config, quiet, CPU)
        assert len(times) == counted
    for wrong in ({"warmup": -1}, {"least": 0}, {"least": 4, "updates": 3}):
        with pytest.raises(ValueError, match="warmup must be at least 0"):
            MeasureConfig(**wrong)


def test_what_cannot_fit_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny()
    plans = plan(recipe, only="pretrain_text")
    monkeypatch.setattr(plan_measure, "memory_left", lambda device: 1000)
    monkeypatch.setattr(plan_measure, "loads_of", lambda *_: pytest.fail("parts were made"))
    with pytest.raises(InputError, match=r"pretrain_text needs .* the cpu here has 0\.00 GB"):
        measure(recipe, plans, SHORT)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux counts peaks anew")
def test_a_peak_is_seen_after_it_has_gone() -> None:
    for size in (96, 32):  # the second must not show the first
        watch = MemoryWatch(CPU)
        torch.ones(size, 1 << 18).sum()
        peak = watch.peak()
        assert peak is not None and 0.9 * size < peak / 2**20 < 1.5 * size


def test_checkpointing_keeps_less_and_computes_more(adopted: Recipe) -> None:
    more = ["adopt_parts.dtype=float32", "instruct.context=64"]
    (with_it,) = plan(adopted.override(more), only="instruct")
    (without,) = plan(
        adopted.override([*more, "instruct.loop.checkpointing=false"]), only="instruct"
    )
    assert with_it.activations < without.activations and with_it.flops > without.flops
    rank = adopted.stage("instruct").config.lora.rank
    (double,) = plan(adopted.override([f"instruct.lora.rank={2 * rank}"]), only="instruct")
    assert isinstance(adopted.stage("instruct").config.lora, LoraSettings)
    qkv, down = (24 + 48) + (24 + 24), (24 + 64) + (32 + 24)
    assert double.trained - with_it.trained == rank * 2 * (qkv + down)


def test_the_command_measures_and_gives_the_setting() -> None:
    command = ["plan", "nano", *TINY, "--measure", "--stage", "align_connector", "--epoch", "1h"]
    shown = CliRunner().invoke(app, [*command, "--device", "cpu", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.output)
    (seen,), (epoch,), (planned,) = found["measured"], found["epochs"], found["stages"]
    assert seen["stage"] == planned["stage"] == "align_connector" and seen["seconds"] > 0
    assert epoch["updates"] == int(3600 / seen["seconds"]) and epoch["rate"] == "measured here"
    longer = resolve("nano").override([epoch["setting"]])
    assert longer.stage("align_connector").config.loop.steps == epoch["updates"]
    plain = CliRunner().invoke(app, [*command, "--device", "cpu"])
    assert plain.exit_code == 0 and "align_connector.loop.steps=" in plain.stdout
    assert "ms an update" in plain.stderr and "measured on cpu" in plain.stdout
