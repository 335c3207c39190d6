"""Optimisers and learning-rate schedules: Muon for hidden matrices, AdamW for everything else.

Knows: which parameters get which rule, and the rate at a step as a pure function of the step.
Does not know: what is being trained, or how losses are made.
Costs: AdamW keeps two numbers a parameter, Muon one plus five small matmuls a matrix a step;
at laptop sizes Muon reached the same loss in roughly half the steps (LOG.md).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from lumoomni.train.crew import Crew
from lumoomni.train.muon import Muon
from lumoomni.train.precision import bf16_supported

# Embedding tables and output heads are 2-D too, but their rows are independent symbols: AdamW.
NOT_MATRICES = (
    *("table", "embed", "head", "ctc", "codebook", "position", "latents", "cls", "probe"),
    "short_conv",
    # Kernels: of ViT's plain patches, which are its table of pixels; of the audio tower, where
    # what is missing is sentences, not steps (LOG.md).
    *("patches.weight", "convs"),
)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """`lr` drives AdamW; `matrix_lr` drives Muon (arXiv 2502.16982), 0 gives all to AdamW."""

    lr: float = 1e-3
    matrix_lr: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup: int = 30
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    decay_from: float = 0.4
    """Share of the run after which the rate starts to fall."""
    min_ratio: float = 0.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf or not 0 <= self.matrix_lr < math.inf:
            raise ValueError(f"learning rates must be positive, got {self.lr}, {self.matrix_lr}")
        if not 0 <= self.decay_from <= 1:
            raise ValueError(f"decay_from is a share of the run in [0, 1], got {self.decay_from}")


def rate_at(config: OptimConfig, step: int, steps: int) -> float:
    """The factor on the base rate at `step` of `steps`: warm-up, plateau, decay."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    start = config.decay_from * steps
    if config.schedule == "constant" or step <= start:
        return warm
    left = (steps - step) / max(1.0, steps - start)
    shape = left if config.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
    return warm * (config.min_ratio + (1 - config.min_ratio) * shape)


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """True for the weights between hidden layers, the ones that Muon orthogonalises: matrices, and
    kernels over pictures."""
    return parameter.dim() in (2, 4) and not any(word in name for word in NOT_MATRICES)


class Optimizers:
    """One or two torch optimisers moved together over the parameters that require gradients.

    `scale` multiplies the rate of the parameters whose name starts with a given prefix. With
    `bf16`, Muon's products are made in bfloat16 where that is faster.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        config: OptimConfig,
        scale: dict[str, float] | None = None,
        *,
        bf16: bool = True,
    ) -> None:
        self.config = config
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for name, parameter in named:
            if not parameter.requires_grad:
                continue
            factor = next((f for p, f in (scale or {}).items() if name.startswith(p)), 1.0)
            muon = config.matrix_lr > 0 and is_hidden_matrix(name, parameter)
            groups.setdefault((muon, factor), []).append(parameter)
        if not groups:
            raise ValueError("no parameter requires a gradient: nothing would be trained")
        self.parameters = [p for group in groups.values() for p in group]
        self.members: list[torch.optim.Optimizer] = []
        self._base: list[list[float]] = []
        for muon in (True, False):
            chosen = [
                {"params": params, "lr": (config.matrix_lr if muon else config.lr) * factor}
                for (is_muon, factor), params in groups.items()
                if is_muon == muon
            ]
            if chosen:
                self.members.append(_make(chosen, config, muon=muon, bf16=bf16))
                self._base.append([group["lr"] for group in chosen])

    def join(self, crew: Crew) -> None:
        """Share Muon's products with a crew from now on."""
        for member in self.members:
            if isinstance(member, Muon):
                member.crew = crew

    def shareable(self) -> int:
        """How many elements all matrices have whose products can be shared."""
        return sum(
            parameter.numel()
            for member in self.members
            if isinstance(member, Muon)
            for group in member.param_groups
            for parameter in group["params"]
        )

    def set_rate(self, step: int, steps: int) -> float:
        """Set every group's rate for `step`; returns the factor applied."""
        factor = rate_at(self.config, step, steps)
        for member, base in zip(self.members, self._base, strict=True):
            for group, lr in zip(member.param_groups, base, strict=True):
                group["lr"] = lr * factor
        return factor

    def step(self) -> float:
        """Clip the global gradient norm, update, forget the gradients; returns the norm."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        for member in self.members:
            member.step()
            member.zero_grad(set_to_none=True)
        return float(norm)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The whole state as flat named tensors, for safetensors."""
        out = {}
        for m, member in enumerate(self.members):
            for p, state in member.state_dict()["state"].items():
                for key, value in state.items():
                    out[f"{m}.{p}.{key}"] = torch.as_tensor(value)
        return out

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Put back what `tensors` gave; the parameter order must be the same."""
        states: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in self.members]
        for name, value in tensors.items():
            m, p, key = name.split(".", 2)
            states[int(m)].setdefault(int(p), {})[key] = value
        for member, state in zip(self.members, states, strict=True):
            member.load_state_dict(
                {"state": state, "param_groups": member.state_dict()["param_groups"]}
            )


def _make(
    groups: list[dict], config: OptimConfig, *, muon: bool, bf16: bool
) -> torch.optim.Optimizer:
    if muon:
        native = bf16 and bf16_supported(groups[0]["params"][0].device)
        return Muon(
            groups,
            lr=config.matrix_lr,
            weight_decay=config.weight_decay,
            dtype=torch.bfloat16 if native else torch.float32,
        )
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
