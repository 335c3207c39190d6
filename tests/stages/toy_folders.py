"""Folders as they are published, at toy size: a random Qwen3, a random SigLIP, LLaVA's listing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lumoomni.data.world.language import caption
from lumoomni.data.world.scene import Scene, draw, make_scene
from lumoomni.model.hf_weights import save_thinker
from lumoomni.model.thinker import Thinker, ThinkerConfig
from tests.tiny import text_codec

transformers = pytest.importorskip("transformers")
Told = list[dict[str, str]]


def said(*texts: str) -> Told:
    """Turns as LLaVA writes them, the human's first."""
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def captioned(scene: Scene) -> Told:
    """One request and a caption, as in LLaVA-Pretrain."""
    return said("Describe it.\n<image>", caption(scene))


def talked(scene: Scene) -> Told:
    """Two answers, as in LLaVA-Instruct."""
    count = f"there are {len(scene.things)}"
    return said("<image>\nHow many shapes are there?", count, "Describe it.", caption(scene))


def write_thinker(folder: Path, seed: int = 0) -> None:
    """A Qwen3 folder with its tokenizer."""
    codec = text_codec()
    torch.manual_seed(seed)
    shape = ThinkerConfig(
        vocab_size=codec.vocab_size + 64,
        width=24,
        layers=2,
        heads=2,
        kv_heads=1,
        head_width=12,
        ffn_width=32,
    )
    save_thinker(Thinker(shape), folder)
    codec.save(folder / "tokenizer.json")


def write_siglip(folder: Path) -> None:
    """A SigLIP folder of 16 patches with its processor."""
    config = transformers.SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    transformers.SiglipVisionModel(config).save_pretrained(folder)
    processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)


def write_llava(root: Path, tell: Callable[[Scene], Told], count: int = 60) -> list[dict[str, Any]]:
    """Pictures of the micro-world and `llava.json` about them; its records."""
    items: list[dict[str, Any]] = []
    for i in range(count):
        scene = make_scene(0, "train", i)
        Image.fromarray(draw(scene, 48)).save(root / f"{i}.png")
        items.append({"id": str(i), "image": f"{i}.png", "conversations": tell(scene)})
    (root / "llava.json").write_text(json.dumps(items))
    return items


def write_world(root: Path, tell: Callable[[Scene], Told]) -> dict[str, str]:
    """All of them under `root`, by the recipes' short names."""
    write_thinker(root / "llm")
    write_siglip(root / "vision")
    write_llava(root, tell)
    return {
        "llm": str(root / "llm"),
        "vision": str(root / "vision"),
        "data": f"llava:{root / 'llava.json'}",
    }
