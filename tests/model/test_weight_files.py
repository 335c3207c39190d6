"""Reading safetensors files: the library's own values, and a cut file is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lumoomni.errors import InputError
from lumoomni.model.weight_files import stored_tensors


def test_every_type_and_shape_is_read_as_the_library_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "bf16": torch.randn(3, 5).bfloat16(),
        "half": torch.randn(7).half(),
        "float": torch.randn(2, 3, 4),
        "scalar": torch.tensor(2.5),
        "whole": torch.arange(6),
        "none": torch.zeros(0, 4),
        "flag": torch.tensor([True, False]),
    }
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    wanted, found = load_file(path), stored_tensors(path)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        read = found[name].read()
        assert read.dtype == value.dtype and torch.equal(read, value), name
        for kind in (value.dtype, torch.float64):
            target = torch.zeros(value.shape, dtype=kind)
            found[name].fill(target)
            assert torch.equal(target, value.to(kind)), name
        assert read.data_ptr() != found[name].read().data_ptr() or not value.numel()


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.randn(64)}, path)
    found, whole = stored_tensors(path), path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        stored_tensors(path)
    with pytest.raises(InputError, match=r"x in .* has 246 of its 256 bytes"):
        found["x"].read()
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        stored_tensors(path)


def test_rows_and_columns_of_a_parameter_are_filled(tmp_path: Path) -> None:
    """Rows are filled in place; columns are no whole piece of memory and take a copy."""
    path, value = tmp_path / "a.safetensors", torch.randn(2, 3)
    save_file({"x": value}, path)
    rows, columns = torch.nn.Parameter(torch.zeros(5, 3)), torch.zeros(2, 6)
    stored_tensors(path)["x"].fill(rows[1:3])
    stored_tensors(path)["x"].fill(columns[:, 2:5])
    assert torch.equal(rows[1:3], value) and not rows[[0, 3, 4]].any()
    assert torch.equal(columns[:, 2:5], value) and not columns[:, [0, 1, 5]].any()
