"""Track A on adopted parts: random Qwen3 and SigLIP folders, LLaVA data, one connector on top."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import lumoomni
from lumoomni.cli import app
from lumoomni.errors import GateFailure, InputError
from lumoomni.gates import Check
from lumoomni.infer.assemble import load_part
from lumoomni.infer.chat import Choice
from lumoomni.model.perceiver import PerceiverConnector
from lumoomni.model.siglip import SiglipTower
from lumoomni.pipeline import Recipe, build
from lumoomni.recipes import resolve
from lumoomni.recipes.plan import plan
from lumoomni.report.html import write_report
from lumoomni.runtime import Interrupted, Progress
from lumoomni.stages import align_connector, sweep_connector
from lumoomni.stages.adopt_parts import find_model
from tests.stages.toy_folders import captioned, write_llava, write_world

SMALL = [
    "adopt_parts.dtype=float32",
    "align_connector.latents=6",
    "align_connector.width=16",
    "align_connector.heads=2",
    "align_connector.mlp_ratio=1",
    "align_connector.loop.steps=3",
    "align_connector.loop.batch_size=4",
    "align_connector.loop.accumulate=2",
    "align_connector.eval_items=20",
    "instruct.loop.steps=1",
    "instruct.loop.batch_size=4",
    "instruct.loop.accumulate=1",
    "instruct.eval_items=20",
    "sweep_connector.align.latents=6",
    "sweep_connector.align.width=16",
    "sweep_connector.align.heads=2",
    "sweep_connector.align.mlp_ratio=1",
    "sweep_connector.align.loop.steps=2",
    "sweep_connector.align.loop.batch_size=4",
    "sweep_connector.align.eval_items=20",
    "sweep_connector.listed=1e-4/true,2e-4/false",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders as they are published: a Qwen3, a SigLIP, and pictures with LLaVA's listing."""
    return write_world(tmp_path_factory.mktemp("track_a"), captioned)


def recipe(world: dict[str, str]) -> Recipe:
    """The published recipe at toy size; the connector's gate replaced by one that holds."""
    made = resolve("qwen3-8b").override([*(f"{k}={v}" for k, v in world.items()), *SMALL])
    kept = Check(metric="frozen.changed", op="==", threshold=0.0, why="frozen means frozen")
    adopt, *others = made.stages
    gated = [replace(stage, checks=lambda config: (kept,)) for stage in others]
    return replace(made, stages=(adopt, *gated))


@pytest.fixture(scope="module")
def built(world: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "qwen"
    build(recipe(world), out, progress=Progress(silent=True))
    return out


def test_short_names_reach_their_settings(world: dict[str, str]) -> None:
    made = recipe(world)
    assert made.stage("adopt_parts").config.llm == world["llm"]
    assert made.stage("align_connector").config.data == world["data"]
    with pytest.raises(InputError, match="is no setting"):
        made.override(["nothing=1"])


def test_only_the_connector_is_stored_and_it_chats(built: Path, world: dict[str, str]) -> None:
    files = sorted(path.name for path in built.rglob("*.safetensors"))
    # Aligned, instructed, and two of the sweep.
    assert files == ["image_connector.safetensors"] * 4 + ["thinker_adapter.safetensors"]
    lumo = lumoomni.load(built)
    assert isinstance(lumo.parts.need("vision"), SiglipTower)
    assert isinstance(lumo.parts.need("image_connector"), PerceiverConnector)
    picture = Path(world["data"].split(":", 1)[1]).parent / "0.png"
    reply = lumo.chat("What is it?", image=picture, choice=Choice(max_new_tokens=5))
    assert isinstance(reply.text, str)
    facts = json.loads((built / "adopt_parts" / "thinker.json").read_text())
    assert {"config.json", "model.safetensors"} <= facts["files"].keys()
    assert all(len(fact["sha256"]) == 64 for fact in facts["files"].values())


def test_a_golden_set_is_looked_at_and_changes_nothing(
    built: Path, world: dict[str, str], tmp_path: Path
) -> None:
    rows = [
        json.loads(line)
        for line in (built / "align_connector" / "golden.jsonl").read_text().splitlines()
    ]
    assert {row["step"] for row in rows} == {1, 2, 3}
    assert all(len(row["sha1"]) == 8 and row["wanted"] for row in rows)
    pictures = list((built / "align_connector" / "golden").glob("*.png"))
    assert len(pictures) == len({row["item"] for row in rows}) > 0
    assert "same pictures over training" in write_report(built).read_text()
    plain = recipe(world).override(["align_connector.golden=0"])
    build(plain, tmp_path / "plain", until="align_connector", progress=Progress(silent=True))
    paths = [folder / "align_connector" for folder in (built, tmp_path / "plain")]
    assert not (paths[1] / "golden.jsonl").exists()
    one, two = ((path / "image_connector.safetensors").read_bytes() for path in paths)
    assert one == two


def test_eval_measures_pictures_of_any_source(built: Path, world: dict[str, str]) -> None:
    asked = ["eval", str(built), "--suite", "pictures", "--data", world["data"], "--json"]
    shown = CliRunner().invoke(app, [*asked, "--n", "10"])
    assert shown.exit_code == 0, shown.output
    metrics = json.loads(shown.output)["metrics"]
    assert {"ablation.shuffled_over_correct", "caption.words_wrong", "labels.none"} <= set(metrics)
    assert metrics["caption.exact"]["n"] <= 10
    shown = CliRunner().invoke(app, ["eval", str(built), "--n", "10", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.output)
    assert "caption.right" in found["metrics"] and "listening" in found["notes"]


def test_eval_cuts_what_the_model_has_no_positions_for(built: Path, tmp_path: Path) -> None:
    """Long answers are cut, long questions left out, and both are told; nothing left is refused."""
    items = write_llava(tmp_path, captioned, count=240)
    long = "red " * 3000
    for i, item in enumerate(items):
        if i % 3:
            item["conversations"][i % 3 - 1]["value"] += long
    own = tmp_path / "llava.json"
    asked = ["eval", str(built), "--suite", "pictures", "--data", f"llava:{own}", "--n", "60"]
    own.write_text(json.dumps(items))
    shown = CliRunner().invoke(app, [*asked, "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.output)
    assert "are longer than the 2048 positions" in found["notes"]["pictures"]
    assert 0 < found["metrics"]["caption.exact"]["n"] < found["metrics"]["labels.truncated"]["n"]
    for item in items:
        item["conversations"][0]["value"] = "<image>" + long
    own.write_text(json.dumps(items))
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 2 and "hold out shorter ones" in " ".join(shown.output.split())


def test_kept_features_and_packed_rows_train_the_same_stage(
    world: dict[str, str], tmp_path: Path
) -> None:
    """Kept features give the same connector, bit for bit; packed rows give another one."""
    weights = {}
    for name, settings in {
        "plain": [],
        "kept": ["align_connector.cache_features=true"],
        "packed": ["align_connector.pack=256", "align_connector.context=200"],
        "both": [
            "align_connector.pack=256",
            "align_connector.context=200",
            "align_connector.cache_features=true",
        ],
    }.items():
        made = recipe(world).override(["align_connector.golden=0", *settings])
        out = tmp_path / name
        build(made, out, until="align_connector", progress=Progress(silent=True))
        weights[name] = (out / "align_connector" / "image_connector.safetensors").read_bytes()
    assert weights["plain"] == weights["kept"] and weights["packed"] == weights["both"]
    assert weights["plain"] != weights["packed"]
    assert len(list((tmp_path / "kept" / ".cache" / "features").glob("*/*.arrow"))) == 1


def test_a_killed_sweep_goes_on_with_what_is_missing(
    world: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = align_connector.train, []

    def counted(context, config, site, out):  # type: ignore[no-untyped-def]
        seen.append(out.name)
        if context.name == "sweep_connector" and len(seen) == 3:
            raise Interrupted("killed in the second run of the sweep")
        return real(context, config, site, out)

    monkeypatch.setattr(sweep_connector.align_connector, "train", counted)
    out = tmp_path / "killed"
    with pytest.raises(Interrupted):
        build(recipe(world), out, progress=Progress(silent=True))
    build(recipe(world), out, progress=Progress(silent=True))
    assert [name.partition(",")[0] for name in seen[1:]] == ["lr=0.0001", "lr=0.0002", "lr=0.0002"]
    rows = json.loads((out / "sweep_connector" / "ranking.json").read_text())
    assert len(rows) == 2 and {row["vision_ln"] for row in rows} == {True, False}


def test_a_plan_counts_what_is_built(built: Path, world: dict[str, str]) -> None:
    made = {one.stage: one for one in plan(recipe(world))}["align_connector"]
    lumo = lumoomni.load(built / "align_connector")

    def count(part: str) -> int:
        return sum(p.numel() for p in lumo.parts.need(part).parameters())

    assert made.trained == count("image_connector")
    assert made.frozen == count("thinker") + count("vision")
    assert made.gradients == 4 * made.trained and made.flops > 0


def test_a_real_gate_stops_what_learned_nothing(world: dict[str, str], tmp_path: Path) -> None:
    made = resolve("qwen3-8b").override([*(f"{k}={v}" for k, v in world.items()), *SMALL])
    with pytest.raises(GateFailure, match="align_connector did not pass"):
        build(made, tmp_path / "x", progress=Progress(silent=True))


def test_another_model_in_the_folder_is_refused(built: Path, world: dict[str, str]) -> None:
    from lumoomni.artifacts import open_artifact

    path = Path(world["llm"]) / "model.safetensors"
    before = path.read_bytes()
    try:
        path.write_bytes(before + b" ")
        with pytest.raises(InputError, match=f"has {len(before) + 1:,} bytes, but adopt_parts"):
            load_part(open_artifact(built / "adopt_parts"), "thinker")
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(InputError, match="was changed: its SHA-256 is"):
            load_part(open_artifact(built / "adopt_parts"), "thinker")
        path.unlink()
        with pytest.raises(InputError, match="has no bytes"):
            load_part(open_artifact(built / "adopt_parts"), "thinker")
    finally:
        path.write_bytes(before)


def test_what_is_no_model_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="add llm=FOLDER"):
        find_model("", "llm")
    with pytest.raises(InputError, match="is no folder, and no hub id"):
        find_model(str(tmp_path / "none"), "vision")
    shown = CliRunner().invoke(app, ["build", "qwen3-8b", "--out", str(tmp_path / "o")])
    assert shown.exit_code == 2
    shown = CliRunner().invoke(app, ["params", "qwen3-8b"])
    assert shown.exit_code == 2
