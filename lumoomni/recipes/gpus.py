"""What a few GPUs can do: operations a second, bytes a second, bytes of memory.

Knows: the numbers of the makers' data sheets. Does not know: how much of them a training reaches.
Costs: nothing.
"""

from dataclasses import dataclass

from lumoomni.config import nearest
from lumoomni.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """flops: dense bf16 operations a second, sums in float32; memory in bytes, bandwidth in bytes
    a second."""

    flops: float
    memory: float
    bandwidth: float


GPUS = {
    "h200": Gpu(flops=989e12, memory=141e9, bandwidth=4.8e12),
    "h100": Gpu(flops=989e12, memory=80e9, bandwidth=3.35e12),
    "a100": Gpu(flops=312e12, memory=80e9, bandwidth=2.039e12),
    "4090": Gpu(flops=165.2e12, memory=24e9, bandwidth=1.008e12),
    "3090": Gpu(flops=71e12, memory=24e9, bandwidth=0.936e12),
    "3060": Gpu(flops=25.5e12, memory=12e9, bandwidth=0.36e12),
    "l4": Gpu(flops=121e12, memory=24e9, bandwidth=0.3e12),
    # It has no bf16: this is float32, which emulation cannot exceed.
    "t4": Gpu(flops=8.1e12, memory=16e9, bandwidth=0.32e12),
}
"""Vendor data sheets; h100 is the SXM one, a100 the SXM one of 80 GB."""
KIN = {"laptop", "mobile", "ti", "super", "nvl"}


def find_gpu(name: str) -> Gpu:
    """Raises InputError for a GPU that is not in the table."""
    found = GPUS.get(name.lower())
    if found is None:
        raise InputError(f"there is no GPU {name!r} in the table; {nearest(name, GPUS)}")
    return found


def gpu_called(device: str) -> str | None:
    """The table's name for what a driver calls a device (`NVIDIA L4`), None where it has none.

    A word has to match as a whole, and words of slower or faster kin must not be there: an L40S is
    no L4, a 3060 Ti no 3060, an H100 PCIe no H100 SXM.
    """
    words = set(device.lower().replace("-", " ").split())
    name = next((name for name in GPUS if name in words), None)
    return None if words & KIN or (name == "h100" and "pcie" in words) else name
