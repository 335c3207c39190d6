"""Conversations without a picture: `instruct` learns them, aligning leaves them out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lumoomni.gates import Check
from lumoomni.model.lora import ADAPTER
from lumoomni.pipeline import Recipe, build
from lumoomni.recipes import resolve
from lumoomni.runtime import Progress
from tests.stages.toy_folders import said, talked, write_llava, write_siglip, write_thinker

pytest.importorskip("peft")
TEXTS = 40


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("mix")
    write_thinker(root / "llm")
    write_siglip(root / "vision")
    items = write_llava(root, talked)
    (root / "pictures.json").write_text(json.dumps(items))
    for i in range(TEXTS):
        talk = said(f"the {i}th is what colour?", "a large red circle", "sure?", f"yes, {i}")
        items.append({"id": f"wgByO4Y_{i}", "model": "", "conversations": talk})
    (root / "mix.json").write_text(json.dumps(items))
    return {name: str(root / name) for name in ("llm", "vision", "mix.json", "pictures.json")}


def recipe(world: dict[str, str], name: str, stage: str, data: str, *more: str) -> Recipe:
    made = resolve(name).override(
        [f"llm={world['llm']}", f"vision={world['vision']}", f"{stage}.data=llava:{data}"]
    )
    shaped = f"{stage}.fresh" if stage == "instruct" else stage
    changes = [f"{shaped}.{k}" for k in ("latents=6", "width=16", "heads=2", "mlp_ratio=1")]
    changes += [f"{stage}.{k}" for k in ("loop.steps=6", "loop.batch_size=1", "loop.accumulate=2")]
    changes += [f"{stage}.eval_items=20", f"{stage}.golden=2", "adopt_parts.dtype=float32"]
    made = made.override([*changes, f"{stage}.optim.lr=0.01", f"{stage}.optim.warmup=1", *more])
    kept = Check(metric="frozen.changed", op="==", threshold=0.0, why="frozen means frozen")
    adopt, *others = made.stages
    return replace(
        made, stages=(adopt, *(replace(one, checks=lambda config: (kept,)) for one in others))
    )


def test_instruct_learns_text_among_pictures(world: dict[str, str], tmp_path: Path) -> None:
    """Whole micro-batches without a picture too, and with kept features."""
    weights = {}
    for name, data, more in (
        ("mixed", world["mix.json"], ()),
        ("kept", world["mix.json"], ("instruct.cache_features=true",)),
        ("skipped", f"{world['mix.json']}?text_only=skip", ()),
    ):
        made = recipe(world, "qwen3-0.6b-onestage", "instruct", data, *more)
        done = build(made, tmp_path / name, progress=Progress(silent=True))["instruct"]
        assert done.report.metrics["data.text_only"].value == TEXTS
        files = [done.path / f"{one}.safetensors" for one in ("image_connector", ADAPTER)]
        weights[name] = {k: v for file in files for k, v in load_file(file).items()}
    for key, value in weights["mixed"].items():
        assert torch.equal(weights["kept"][key], value), key
    assert any(not torch.equal(weights["skipped"][k], v) for k, v in weights["mixed"].items())


def test_aligning_leaves_text_out_and_counts_it(world: dict[str, str], tmp_path: Path) -> None:
    found = {}
    for name in ("mix.json", "pictures.json"):
        made = recipe(world, "qwen3-0.6b", "align_connector", world[name])
        out = tmp_path / name
        done = build(made, out, until="align_connector", progress=Progress(silent=True))
        metrics = done["align_connector"].report.metrics
        count = metrics["data.text_only"].value if "data.text_only" in metrics else 0
        path = out / "align_connector" / "image_connector.safetensors"
        found[name] = (count, path.read_bytes())
    assert (found["mix.json"][0], found["pictures.json"][0]) == (TEXTS, 0)
    assert found["mix.json"][1] == found["pictures.json"][1]
