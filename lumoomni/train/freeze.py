"""Freezing parts of a model, and proof that a frozen part did not move.

Costs: `fingerprint` hashes every byte once, about a second a gigabyte.
"""

import hashlib

import torch
from torch import nn


def freeze(module: nn.Module) -> nn.Module:
    """Stop gradients and put the module in evaluation mode; returns it."""
    module.requires_grad_(False)
    return module.eval()


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of all parameters and persistent buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().contiguous().cpu()
        digest.update(f"{name}|{tuple(flat.shape)}|{flat.dtype}|".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def parameter_count(module: nn.Module, *, trainable: bool = False) -> int:
    """Parameters of the module, shared ones once; only those with gradients if `trainable`."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
