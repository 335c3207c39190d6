"""Models are put together from the right parts, or refused with a reason."""

import json
from pathlib import Path

import pytest
import torch

from lumoomni.artifacts import open_artifact
from lumoomni.errors import InputError
from lumoomni.infer.assemble import gather, load_part, save_part
from tests.tiny import modules, text_codec, write_model


@pytest.fixture()
def build(tmp_path: Path) -> Path:
    return write_model(tmp_path / "build")


def test_the_latest_owner_of_a_part_counts(build: Path) -> None:
    parts = gather(build)
    assert parts.sources["thinker"] == "instruct"
    assert parts.sources["audio"] == "train_audio_encoder"
    earlier = gather(build / "train_talker")
    assert earlier.sources["thinker"] == "pretrain_text"
    with pytest.raises(InputError, match="--until instruct"):
        earlier.need("image_connector")


def test_parts_come_back_exactly(build: Path) -> None:
    wanted = modules(text_codec())
    found = gather(build).modules
    for name, module in wanted.items():
        state = found[name].state_dict()
        for key, value in module.state_dict().items():
            assert torch.equal(state[key], value), (name, key)
        assert not found[name].training


def test_a_changed_byte_is_refused_by_name(build: Path) -> None:
    path = build / "train_talker" / "talker.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"talker.safetensors was changed: its SHA-256 is"):
        gather(build)


def test_a_missing_file_is_named(build: Path) -> None:
    (build / "train_codecs" / "speech_codec.json").unlink()
    with pytest.raises(InputError, match=r"speech_codec.json is missing"):
        gather(build)


def test_a_foreign_parent_is_refused_with_both_hashes(build: Path, tmp_path: Path) -> None:
    manifest = build / "train_talker" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["seed"] = 99
    manifest.write_text(json.dumps(data))
    wanted = json.loads((build / "instruct" / "manifest.json").read_text())["parents"]
    with pytest.raises(InputError) as caught:
        gather(build)
    assert wanted["train_talker"][:12] in str(caught.value)
    assert open_artifact(build / "train_talker").hash[:12] in str(caught.value)


def test_a_failed_stage_is_not_used(build: Path) -> None:
    manifest = build / "instruct" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["verdict"]["passed"] = False
    manifest.write_text(json.dumps(data))
    assert gather(build).artifact.kind == "train_talker"
    with pytest.raises(InputError, match="did not pass its gate"):
        gather(build / "instruct")


def test_places_that_hold_no_model_say_so(build: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        gather(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not an artifact"):
        gather(tmp_path / "empty")
    (tmp_path / "empty" / "recipe.json").write_text('{"stages": {"a": {}}}')
    with pytest.raises(InputError, match="no finished stage"):
        gather(tmp_path / "empty")


def test_weights_that_do_not_fit_are_named(build: Path) -> None:
    artifact = open_artifact(build / "train_talker")
    other = modules(text_codec())["talker"]
    other.register_parameter("stranger", torch.nn.Parameter(torch.zeros(1)))
    save_part(build / "train_talker", "talker", other)
    data = artifact.manifest["files"]
    import hashlib

    path = build / "train_talker" / "talker.safetensors"
    data["talker.safetensors"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(InputError, match="stranger"):
        load_part(artifact, "talker")


def test_a_failed_stage_can_be_tried_and_says_so(build: Path) -> None:
    manifest = build / "instruct" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["verdict"]["passed"] = False
    data["checks"][0]["threshold"] = 9.0
    manifest.write_text(json.dumps(data))
    parts = gather(build, unproven=True)
    assert parts.artifact.kind == "instruct"
    assert parts.unproven == ("instruct did not pass its gate: m is 1 (n=1), but needed >= 9: ",)
    assert gather(build).unproven == ()


def test_a_part_that_failed_its_gate_is_not_said_to_be_unbuilt(build: Path) -> None:
    manifest = build / "instruct" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["verdict"]["passed"] = False
    manifest.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"did not pass its gate.*--unproven"):
        gather(build / "train_talker").need("image_connector")
