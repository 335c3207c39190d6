"""Checkpoints of published codecs: what their hash covers, and which ones are refused, and how."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumoomni.codecs.pretrained import CodecOptions, copy_files, load_pretrained, weights_hash
from lumoomni.errors import InputError
from tests.codecs.tiny_codecs import picture, write_codec

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_codec(tmp_path_factory.mktemp("kept") / "janus", "janus")


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "janus"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_hash_covers_tensors_processor_and_what_the_config_means(folder: Path) -> None:
    first, seen = weights_hash(folder), set()
    change(folder / "config.json", transformers_version="9.9", _name_or_path="/elsewhere")
    assert weights_hash(folder) == first == load_pretrained(folder).facts.weights
    change(folder / "config.json", num_patches=16)
    seen.add(weights_hash(folder))
    change(folder / "preprocessor_config.json", resample=2)
    seen.add(weights_hash(folder))
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(data))
    seen.add(weights_hash(folder))
    assert len(seen) == 3 and first not in seen


def test_a_copy_is_the_same_codec(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("not a part of it")
    copy_files(folder, tmp_path / "copy")
    names = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert names == ["config.json", WEIGHTS, "preprocessor_config.json"]
    one, two = load_pretrained(folder), load_pretrained(tmp_path / "copy")
    assert one.facts == two.facts
    assert np.array_equal(one.encode(picture(1)).codes, two.encode(picture(1)).codes)


def test_a_hub_id_is_downloaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[tuple[str, list[str]]] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        if name != "someone/janus-vq":
            raise LocalEntryNotFoundError("no network and no copy")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_pretrained("someone/janus-vq").facts.name == "janus-vq"
    assert "*.safetensors" in asked[0][1] and not any("bin" in p or p == "*" for p in asked[0][1])
    with pytest.raises(InputError, match="someone/none is no folder and cannot be had"):
        load_pretrained("someone/none")
    for name in ("./gone/away", "gone", str(folder / "gone")):
        with pytest.raises(InputError, match="there is no folder"):
            load_pretrained(name)
    assert len(asked) == 2


def test_what_is_no_such_codec_is_refused(folder: Path) -> None:
    config, processor = folder / "config.json", folder / "preprocessor_config.json"
    whole, colours = config.read_text(), processor.read_text()
    with pytest.raises(InputError, match="one codebook, not 2"):
        load_pretrained(folder, CodecOptions(books=2))
    for changed, problem in (
        ({"model_type": "janus"}, "whole janus model; save its picture codec alone"),
        ({"model_type": "encodek"}, "no codec known here; did you mean encodec"),
        ({"num_embeddings": 32}, "does not match its config.json|cannot be loaded"),
    ):
        change(config, **changed)
        with pytest.raises(InputError, match=problem):
            load_pretrained(folder)
        config.write_text(whole)
    for changed, problem in (
        ({"image_mean": [0.5]}, "there must be three of each"),
        ({"image_std": [0.0, 1.0, 1.0]}, "std and scale positive"),
        ({"rescale_factor": None}, "does not say how colours are scaled"),
    ):
        change(processor, **changed)
        with pytest.raises(InputError, match=problem):
            load_pretrained(folder)
        processor.write_text(colours)
    processor.unlink()
    with pytest.raises(InputError, match=r"has no preprocessor_config.json"):
        load_pretrained(folder)
    processor.write_text(colours)
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cannot be loaded"):
        load_pretrained(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_pretrained(folder)


def test_sound_codecs_are_checked_too(tmp_path: Path) -> None:
    folder = write_codec(tmp_path / "dac", "dac")
    with pytest.raises(InputError, match="has no picture size"):
        load_pretrained(folder, CodecOptions(image_size=32))
    change(folder / "preprocessor_config.json", sampling_rate=44100)
    with pytest.raises(
        InputError, match=r"says 44100 samples a second, but config.json says 16000"
    ):
        load_pretrained(folder)
    (folder / "preprocessor_config.json").unlink()
    assert load_pretrained(folder).facts.sample_rate == 16000
