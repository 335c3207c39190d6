"""SigLIP towers: transformers' own features, frozen for good, and strict about their weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lumoomni.errors import InputError
from lumoomni.model.siglip import load_siglip
from lumoomni.recipes import part_loads

transformers = pytest.importorskip("transformers")

SHAPE = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 9,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole random SigLIP with its processor, as published ones are."""
    torch.manual_seed(0)
    text = {k: v for k, v in SHAPE.items() if "size" not in k or k.startswith(("hid", "int"))}
    text |= {"vocab_size": 50, "max_position_embeddings": 8, "projection_size": 24}
    config = transformers.SiglipConfig(text_config=text, vision_config=SHAPE)
    transformers.SiglipModel(config).save_pretrained(tmp_path)
    processor = transformers.SiglipImageProcessor(size={"height": 28, "width": 28})
    processor.save_pretrained(tmp_path)
    return tmp_path


def pictures() -> list[np.ndarray]:
    stream = np.random.default_rng(0)
    return [stream.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((28, 28), (50, 31))]


def test_features_are_the_peers(folder: Path) -> None:
    tower = load_siglip(str(folder))
    pixels = tower.prepare(pictures())
    peer = transformers.SiglipModel.from_pretrained(folder).vision_model.eval()
    with torch.no_grad():
        wanted = peer(pixel_values=pixels).last_hidden_state
    found = tower(pixels)
    torch.testing.assert_close(found.patches, wanted)
    assert tower.config.grid == 3 and found.patches.shape == (2, 9, 24)
    assert tower.config.width == 24 and found.cls.shape == (2, 24)


def test_it_stays_frozen_and_in_evaluation(folder: Path) -> None:
    tower = load_siglip(str(folder), torch.bfloat16)
    holder = torch.nn.ModuleList([tower]).train()
    assert holder.training and not tower.training and not tower.model.training
    assert not any(p.requires_grad for p in tower.parameters())
    out = tower(tower.prepare(pictures()))
    assert out.patches.dtype == torch.bfloat16 and not out.patches.requires_grad


def test_wrong_pictures_and_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    tower = load_siglip(str(folder))
    with pytest.raises(ValueError, match="reads \\[B, 3, 28, 28\\]"):
        tower(torch.zeros(1, 3, 20, 20))
    path = folder / "model.safetensors"
    tensors = load_file(path)
    lost = next(k for k in tensors if k.startswith("vision_model.encoder"))
    save_file({k: v for k, v in tensors.items() if k != lost}, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="1 tensors missing"):
        load_siglip(str(folder))
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    with pytest.raises(InputError, match="NaFlex is not"):
        load_siglip(str(odd))
    with pytest.raises(InputError, match="give a Hugging Face checkpoint folder"):
        (tmp_path / "none").mkdir()
        load_siglip(str(tmp_path / "none"))


def test_damaged_folders_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    """Also where nothing but the shape is read (`lumo plan`)."""
    for name, why in (("cut", "is not valid JSON"), ("empty", "does not exist; give a")):
        odd = tmp_path / name
        odd.mkdir()
        if name == "cut":
            (odd / "config.json").write_text('{"model_type": "sig')
        for look in (load_siglip, part_loads._siglip):
            with pytest.raises(InputError, match=why):
                look(str(odd)) if look is load_siglip else look(odd)
    odd = tmp_path / "weights"
    shutil.copytree(folder, odd)
    weights = odd / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(InputError, match="no whole safetensors weights"):
        load_siglip(str(odd))
