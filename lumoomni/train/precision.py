"""Where bfloat16 pays, by the processor alone, so that a run goes on as it was begun.

Knows: kinds of processors. Does not know: models, or what is cast. Costs: one file read, once.
"""

from functools import cache

import torch

from lumoomni.arithmetic import maker


def bf16_supported(device: torch.device) -> bool:
    """True when bfloat16 products are faster here than float32 ones.

    Among CPUs that is so with Intel's AMX and with AMD's AVX512-BF16. An Intel core that has
    AVX512-BF16 alone, as virtual machines often show it, does half as many operations a second in
    bfloat16 as in float32 (`python -m benchmarks.precision`); any other emulates it.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and _bf16_pays()


@cache
def _bf16_pays() -> bool:
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and "AMD" in maker()
