"""Stage 2 of Track A on toy folders: adapters and a connector learn, all else stays as it was."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import lumoomni
from lumoomni.artifacts import open_artifact
from lumoomni.cli import app
from lumoomni.errors import GateFailure, InputError
from lumoomni.gates import Check
from lumoomni.infer.assemble import gather, load_part
from lumoomni.infer.chat import Choice
from lumoomni.model.hf_weights import load_thinker
from lumoomni.model.lora import ADAPTER, adapter_tensors, adapters
from lumoomni.pipeline import Recipe, build
from lumoomni.recipes import resolve
from lumoomni.recipes.plan import plan
from lumoomni.runtime import Interrupted, Progress
from lumoomni.stages import instruct_lora
from lumoomni.stages.instruct_lora import InstructLoraTask
from lumoomni.train.recompute import recomputing
from tests.stages.toy_folders import talked, write_thinker, write_world
from tests.tiny import text_codec

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
QUIET = Progress(silent=True)
SHAPE = {"latents": 6, "width": 16, "heads": 2, "mlp_ratio": 1}
TRAINED = {
    "loop.steps": 4,
    "loop.batch_size": 4,
    "loop.accumulate": 2,
    "loop.checkpoint_seconds": 0.0,
    "eval_items": 20,
    "lora.rank": 2,
    "lora_rate": 10.0,
    "optim.lr": 0.01,
    "optim.warmup": 1,
}
IDS = torch.arange(24).view(2, 12) * 5 % 200


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A Qwen3, a SigLIP, and conversations of two answers in LLaVA's listing."""
    return write_world(tmp_path_factory.mktemp("instruct_lora"), talked)


def recipe(
    world: dict[str, str], *more: str, name: str = "qwen3-0.6b", gate: bool = False
) -> Recipe:
    """The published recipe at toy size; without `gate` only what always holds is demanded."""
    made = resolve(name).override(
        [*(f"{k}={v}" for k, v in world.items()), "adopt_parts.dtype=float32"]
    )
    changes = [f"instruct.{key}={value}" for key, value in TRAINED.items()]
    if "align_connector" in made.names():
        changes += [f"align_connector.{key}={value}" for key, value in SHAPE.items()]
        changes += [f"align_connector.loop.{key}" for key in ("steps=2", "batch_size=4")]
        changes += ["align_connector.eval_items=20", "align_connector.golden=0"]
    else:
        changes += [f"instruct.fresh.{key}={value}" for key, value in SHAPE.items()]
    made = made.override([*changes, *more])
    kept = Check(metric="frozen.changed", op="==", threshold=0.0, why="frozen means frozen")
    adopt, *others = made.stages
    gated = [
        stage
        if gate and stage.name == "instruct"
        else replace(stage, checks=lambda config: (kept,))
        for stage in others
    ]
    return replace(made, stages=(adopt, *gated))


@pytest.fixture(scope="module")
def built(world: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "qwen"
    build(recipe(world), out, until="instruct", progress=QUIET)
    return out


def logits(thinker: Any) -> torch.Tensor:
    with torch.inference_mode():
        return thinker.head(thinker(thinker.embed(IDS)).hidden)


def test_connector_and_adapters_alone_are_stored_and_have_learned(
    built: Path, world: dict[str, str]
) -> None:
    folder = built / "instruct"
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert files == ["image_connector.safetensors", f"{ADAPTER}.safetensors"]
    made = load_file(folder / f"{ADAPTER}.safetensors")
    assert len(made) == 16 and all(bool((value != 0).any()) for value in made.values())
    facts = json.loads((folder / f"{ADAPTER}.json").read_text())
    assert facts["rank"] == 2 and len(facts["base"]) == 64
    before = load_file(built / "align_connector" / "image_connector.safetensors")
    after = load_file(folder / "image_connector.safetensors")
    assert before.keys() == after.keys() and not torch.equal(
        before["up.weight"], after["up.weight"]
    )
    metrics = open_artifact(folder).report.metrics
    assert metrics["frozen.changed"].value == 0 and metrics["frozen.changed"].n == 2
    assert metrics["labels.none"].value == 0
    ratio = metrics["text.loss.after"].value / metrics["text.loss.before"].value
    assert metrics["text.loss_ratio"].value == ratio != 1.0
    assert not any(p.read_bytes()[:2] == b"\x80\x04" for p in folder.iterdir() if p.is_file())


def test_the_adapted_model_is_gathered_and_talks(built: Path, world: dict[str, str]) -> None:
    parts = gather(built)
    assert parts.sources["thinker"] == "adopt_parts" and parts.sources[ADAPTER] == "instruct"
    thinker = parts.need("thinker")
    assert len(adapters(thinker)) == 8 and not thinker.training
    base = load_thinker(Path(world["llm"]))
    assert (logits(thinker) - logits(base)).abs().max() > 1e-3
    aligned = gather(built / "align_connector")
    assert ADAPTER not in aligned.sources
    assert torch.equal(logits(aligned.need("thinker")), logits(base))
    picture = Path(world["data"].split(":", 1)[1]).parent / "0.png"
    reply = lumoomni.load(built).chat("What is it?", image=picture, choice=Choice(max_new_tokens=4))
    assert isinstance(reply.text, str)


def test_merging_writes_a_qwen3_that_transformers_reads(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    shown = CliRunner().invoke(app, ["merge", str(built), str(out), "--json"])
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["matrices"] == 8
    wanted = logits(gather(built).need("thinker"))
    torch.testing.assert_close(logits(load_thinker(out)), wanted, atol=2e-5, rtol=0)
    theirs = transformers.Qwen3ForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    with torch.inference_mode():
        torch.testing.assert_close(theirs(IDS).logits, wanted, atol=2e-5, rtol=0)
    codec = text_codec()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    said = "a large red circle"
    assert tokenizer(said)["input_ids"] == list(codec.encode(said))
    assert theirs.generation_config.eos_token_id == codec.special("<|im_end|>")
    again = CliRunner().invoke(app, ["merge", str(built), str(out)])
    assert again.exit_code == 2 and "is not empty" in again.stderr
    bare = CliRunner().invoke(app, ["merge", str(built / "align_connector"), str(tmp_path / "x")])
    assert bare.exit_code == 2 and "has no adapters" in bare.stderr
    assert not (tmp_path / "x").exists()


def test_another_base_is_refused_with_both_hashes(
    built: Path, world: dict[str, str], tmp_path: Path
) -> None:
    from lumoomni.infer.assemble import base_hash, put_adapter

    adopted, made = open_artifact(built / "adopt_parts"), open_artifact(built / "instruct")
    write_thinker(tmp_path / "other", 1)
    other = {**world, "llm": str(tmp_path / "other")}
    build(recipe(other), tmp_path / "b", until="adopt_parts", progress=QUIET)
    foreign = open_artifact(tmp_path / "b" / "adopt_parts")
    one, two = base_hash(adopted), base_hash(foreign)
    thinker = load_part(foreign, "thinker")
    with pytest.raises(InputError, match=f"made for base {one}, but this Thinker is {two}"):
        put_adapter(thinker, made, foreign)
    put_adapter(load_part(adopted, "thinker"), made, adopted)


def test_a_damaged_adapter_is_refused(built: Path) -> None:
    path = built / "instruct" / f"{ADAPTER}.safetensors"
    before = path.read_bytes()
    try:
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(InputError, match="was changed: its SHA-256"):
            gather(built)
    finally:
        path.write_bytes(before)


def test_a_killed_build_goes_on_to_the_same_bytes(
    built: Path, world: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = InstructLoraTask.loss, []

    def killed(self: Any, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:  # in the third update of two micro-batches
            raise Interrupted("killed")
        return real(self, batch)

    # One process: what counts calls must see them all.
    monkeypatch.setattr("lumoomni.train.loop.crew_size", lambda accumulate: 1)
    monkeypatch.setattr(InstructLoraTask, "loss", killed)
    with pytest.raises(Interrupted):
        build(recipe(world), tmp_path / "k", until="instruct", progress=QUIET)
    build(recipe(world), tmp_path / "k", until="instruct", progress=QUIET)
    assert len(calls) == 5 + 4  # two updates were kept, two were left
    for name in (f"{ADAPTER}.safetensors", "image_connector.safetensors"):
        files = [folder / "instruct" / name for folder in (built, tmp_path / "k")]
        assert files[0].read_bytes() == files[1].read_bytes(), name


def test_short_names_reach_their_settings(world: dict[str, str]) -> None:
    made = resolve("qwen3-8b").override([f"{k}={v}" for k, v in world.items()])
    assert made.stage("instruct").config.data == ""  # as the connector's
    assert made.stage("align_connector").config.data == world["data"]
    for order in (["chat=llava:b", "data=llava:a"], ["data=llava:a", "chat=llava:b"]):
        both = resolve("qwen3-8b").override(order)
        assert both.stage("instruct").config.data == "llava:b"
        assert both.stage("align_connector").config.data == "llava:a"
    alone = resolve("qwen3-0.6b-onestage").override(["data=llava:a", "text=txt:t"])
    config = alone.stage("instruct").config
    assert (config.data, config.text, alone.names()) == (
        "llava:a",
        "txt:t",
        ["adopt_parts", "instruct"],
    )
    assert config.optim.schedule == "cosine" and config.optim.warmup > 0


def test_one_stage_starts_from_a_fresh_connector(world: dict[str, str], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "\n".join(f"the {i}th large red circle is above a blue square" for i in range(60))
    )
    out = tmp_path / "one"
    made = recipe(
        world, f"text=txt:{text}", "instruct.lora.modules=qkv", name="qwen3-0.6b-onestage"
    )
    build(made, out, progress=QUIET)
    assert len(adapters(gather(out).need("thinker"))) == 2
    assert open_artifact(out / "instruct").manifest["parents"].keys() == {"adopt_parts"}
    whole = recipe(world)
    both = whole.stage("instruct").config
    with pytest.raises(InputError, match="there are two: unset fresh"):
        wrong = replace(both, fresh=instruct_lora.FreshConnector())
        stages = [replace(s, config=wrong) if s.name == "instruct" else s for s in whole.stages]
        build(
            replace(whole, stages=tuple(stages)), tmp_path / "w", until="instruct", progress=QUIET
        )
    none = replace(
        made,
        stages=tuple(replace(s, config=both) if s.name == "instruct" else s for s in made.stages),
    )
    with pytest.raises(InputError, match="there are none: set fresh"):
        build(none, out, progress=QUIET)


def test_rates_are_separate(world: dict[str, str], built: Path, tmp_path: Path) -> None:
    """At a rate of (nearly) nothing the adapters stay, and the connector moves all the same."""
    made = recipe(world, "instruct.lora_rate=1e-12")
    build(made, tmp_path / "r", until="instruct", progress=QUIET)
    slow, fast = (
        load_file(folder / "instruct" / f"{ADAPTER}.safetensors")
        for folder in (tmp_path / "r", built)
    )
    b = [name for name in slow if "lora_B" in name]
    assert max(float(slow[name].abs().max()) for name in b) < 1e-9
    assert min(float(fast[name].abs().max()) for name in b) > 1e-3
    before = load_file(built / "align_connector" / "image_connector.safetensors")
    after = load_file(tmp_path / "r" / "instruct" / "image_connector.safetensors")
    assert (before["up.weight"] - after["up.weight"]).abs().max() > 1e-3


@pytest.fixture
def task(built: Path, world: dict[str, str]) -> tuple[InstructLoraTask, Any]:
    """The stage's own task on the built parts, with adapters that do something."""
    parents = {name: open_artifact(built / name) for name in ("adopt_parts", "align_connector")}
    config = recipe(world).stage("instruct").config
    context = SimpleNamespace(name="instruct", parents=parents, seed=0, config=config)
    bench = instruct_lora.prepare(context, config)  # type: ignore[arg-type]
    instruct_lora.attach(bench.model.thinker, replace(config.lora, dropout=0.0))
    return instruct_lora.new_task(context, config, bench), bench  # type: ignore[arg-type]


def test_every_answer_is_learned_and_kept_features_serve(
    task: tuple[InstructLoraTask, Any],
) -> None:
    one, bench = task
    batch = one.batch(0)
    text = bench.layout.text_codec
    learned = text.decode([i for i in batch.labels[0].tolist() if i >= 0])
    assert "there are" in learned and bench.source.item("train", 0).caption in learned
    assert "How many" not in learned
    loss = one.loss(batch)
    loss.total.backward()
    patches = bench.model.vision(batch.pixels).patches
    kept = one.loss(replace(batch, pixels=None, features=patches))
    torch.testing.assert_close(kept.total, loss.total)
    other = one.loss(replace(batch, features=patches.roll(1, 0)))
    assert abs((other.total - loss.total).item()) > 1e-4
    grads = {n: p.grad for m in one.modules.values() for n, p in m.named_parameters()}
    assert all((grads[n] is not None) == ("lora_" in n) for n in grads if n.startswith("blocks."))
    assert bench.model.thinker.token_table.weight.grad is None
    assert bench.model.image_connector.up.weight.grad is not None


def test_the_golden_set_is_described_while_it_learns(built: Path) -> None:
    rows = [json.loads(x) for x in (built / "instruct" / "golden.jsonl").read_text().splitlines()]
    assert len({row["step"] for row in rows}) > 1 and all(row["wanted"] for row in rows)
    pictures = list((built / "instruct" / "golden").glob("*.png"))
    assert len(pictures) == len({row["item"] for row in rows})


def test_the_aligned_connector_is_what_it_starts_from(
    task: tuple[InstructLoraTask, Any], built: Path
) -> None:
    aligned = load_file(built / "align_connector" / "image_connector.safetensors")
    own = task[1].model.image_connector.state_dict()
    assert own.keys() == aligned.keys()
    assert all(torch.equal(own[name], aligned[name]) for name in aligned)


def test_checkpointing_is_what_is_said(task: tuple[InstructLoraTask, Any]) -> None:
    one, bench = task
    batch, ran = one.batch(0), []
    hook = bench.model.thinker.blocks[0].register_forward_pre_hook(lambda *a: ran.append(1))
    with recomputing(one.modules.values(), True):
        one.loss(batch).total.backward()
    assert len(ran) == 2
    grads = [p.grad.clone() for p in bench.model.parameters() if p.grad is not None]
    ran.clear()
    bench.model.zero_grad()
    one.loss(batch).total.backward()
    hook.remove()
    assert len(ran) == 1
    for now, then in zip(
        (p.grad for p in bench.model.parameters() if p.grad is not None), grads, strict=True
    ):
        torch.testing.assert_close(now, then)


def test_the_real_gate_stops_what_learned_nothing(world: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(GateFailure, match="instruct did not pass") as failure:
        build(recipe(world, gate=True), tmp_path / "x", until="instruct", progress=QUIET)
    assert "ablation.shuffled_over_correct" in str(failure.value)


@pytest.mark.parametrize("name", ["qwen3-0.6b", "qwen3-0.6b-onestage"])
def test_a_plan_counts_what_is_trained(world: dict[str, str], built: Path, name: str) -> None:
    made = recipe(world, name=name)
    found = {one.stage: one for one in plan(made)}["instruct"]
    parts = gather(built)
    connector = sum(p.numel() for p in parts.need("image_connector").parameters())
    low = sum(t.numel() for t in adapter_tensors(parts.need("thinker")).values())
    assert found.trained == connector + low
    assert found.gradients == 4 * found.trained
    kept = {one.stage: one for one in plan(made.override(["instruct.loop.checkpointing=false"]))}
    assert kept["instruct"].activations > found.activations > 0
