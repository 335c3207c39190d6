"""Tensors of safetensors files, one at a time, without mapping the files into memory.

Knows: the published layout: eight bytes of length, a JSON header, then the tensors' bytes.
Does not know: what the tensors are. Costs: nothing besides what is filled: mapped files would
count as memory in use, a second copy of the model while it is loaded.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lumoomni.errors import InputError

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor in a file; nothing of it is read yet."""

    path: Path
    name: str
    start: int
    size: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """Its values. Raises InputError when the file is shorter than its header says."""
        value = torch.empty(self.shape, dtype=self.dtype)
        self._into(value)
        return value

    @torch.no_grad()
    def fill(self, target: Tensor) -> None:
        """Copy its values into `target` of the same shape, without a copy between where the type
        and the layout allow it."""
        alike = target.dtype == self.dtype and target.device.type == "cpu"
        if alike and target.is_contiguous():
            self._into(target.detach())
        else:
            target.copy_(self.read())

    def _into(self, value: Tensor) -> None:
        if not value.numel():
            return
        buffer = memoryview(value.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            got = 0
            while got < self.size and (count := file.readinto(buffer[got:])):
                got += count
        if got != self.size:
            raise InputError(
                f"{self.name} in {self.path} has {got:,} of its {self.size:,} bytes; get a whole "
                "copy"
            )


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """All tensors of a file by name. Raises InputError for a damaged file."""
    try:
        with safe_open(path, framework="pt") as checked:  # looks at the header and the file's size
            names = set(checked.keys())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    found = {}
    for name in names:
        facts = header[name]
        if facts["dtype"] not in TYPES:
            raise InputError(
                f"{name} in {path} is of type {facts['dtype']}, which is not read here"
            )
        start, stop = (8 + length + offset for offset in facts["data_offsets"])
        found[name] = StoredTensor(
            path=path,
            name=name,
            start=start,
            size=stop - start,
            dtype=TYPES[facts["dtype"]],
            shape=tuple(facts["shape"]),
        )
    return found
