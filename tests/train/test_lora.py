"""Adapters change every way of running a Thinker alike, come off without a trace, stay small."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lumoomni.config import to_dict
from lumoomni.errors import InputError
from lumoomni.infer.engine import GenerateConfig, generate, stepper
from lumoomni.infer.static_step import StaticStep
from lumoomni.infer.step import CachedStep, fits, plan_of
from lumoomni.model.hf_weights import save_thinker
from lumoomni.model.lora import (
    ADAPTER,
    NAME,
    PLACES,
    LoraSettings,
    adapter_tensors,
    adapters,
    attach,
    bare,
    load_adapter,
    merge,
    save_adapter,
)
from lumoomni.model.moe import MoEConfig
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.train.freeze import fingerprint
from lumoomni.train.loss import lm_loss
from lumoomni.train.recompute import recomputing
from tests.compiler import needs_compiler

pytest.importorskip("peft")
SETTINGS = LoraSettings(rank=3, alpha=6.0, dropout=0.0)
TOLERANCE = 2e-5
IDS = torch.arange(22).view(2, 11) * 7 % 50


def plain(**more: Any) -> Thinker:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 50, "width": 24, "layers": 2, "heads": 4, "kv_heads": 2}
    shape |= {"head_width": 6, "ffn_width": 32, "max_positions": 64}
    return Thinker(ThinkerConfig(**shape | more)).eval()


def adapted(settings: LoraSettings = SETTINGS, **more: Any) -> Thinker:
    """With adapters that do a lot: a fresh one does nothing."""
    thinker = plain(**more)
    attach(thinker, settings)
    shake(thinker)
    return thinker.eval()


def shake(thinker: Thinker) -> None:
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in adapters(thinker).values():
            weight = layer.lora_B[NAME].weight
            weight.copy_(torch.randn(weight.shape, generator=source) * 0.3)


def trained_way(thinker: Thinker) -> Tensor:
    """Logits as training computes them: gradients on, checkpointing on."""
    with recomputing([thinker], True):
        hidden = thinker(thinker.embed(IDS).requires_grad_()).hidden
    return thinker.head(hidden).detach()


@torch.inference_mode()
def whole(thinker: Thinker) -> Tensor:
    return thinker.head(thinker(thinker.embed(IDS)).hidden)


@torch.inference_mode()
def stepped(thinker: Thinker, step: Any = None) -> Tensor:
    """Logits with a cache: half at once, then position by position."""
    cache = thinker.new_cache(2, 11)
    parts = [thinker(thinker.embed(IDS[:, :5]), cache=cache).hidden]
    advance = (step or stepper)(thinker, cache)
    parts += [advance(thinker.embed(IDS[:, t]))[:, None] for t in range(5, 11)]
    return thinker.head(torch.cat(parts, 1))


def merged(thinker: Thinker) -> Thinker:
    """A plain copy with the same numbers folded in, by hand."""
    other = plain()
    with torch.no_grad():
        for name, layer in adapters(thinker).items():
            low = layer.lora_B[NAME].weight @ layer.lora_A[NAME].weight
            other.get_submodule(name).weight += SETTINGS.alpha / SETTINGS.rank * low  # type: ignore
    return other


def test_every_way_of_running_changes_alike() -> None:
    before, thinker = whole(plain()), adapted()
    wanted = whole(merged(thinker))
    assert (wanted - before).abs().max() > 0.1
    for found in (trained_way(thinker), whole(thinker), stepped(thinker)):
        torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(stepped(merged(thinker), CachedStep), wanted, atol=2e-5, rtol=0)
    config = GenerateConfig(max_new_tokens=8)
    replies = [generate(model, IDS, config) for model in (thinker, merged(thinker), plain())]
    ids = [[step.ids.tolist() for step in reply] for reply in replies]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("place", PLACES)
def test_each_matrix_reaches_every_way(place: str) -> None:
    """No way may skip one of the matrices."""
    thinker = adapted(LoraSettings(rank=3, alpha=6.0, dropout=0.0, modules=(place,)))
    assert {name.split(".", 2)[2] for name in adapters(thinker)} == {PLACES[place]}
    wanted = whole(merged(thinker))
    assert (wanted - whole(plain())).abs().max() > 1e-3
    for found in (trained_way(thinker), whole(thinker), stepped(thinker)):
        torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


def test_what_reads_plain_weights_refuses_adapters() -> None:
    """peft's wrapper answers `.weight` with the base's, so these would leave the adapter out."""
    thinker = plain()
    plan_of(thinker)  # a plan made before must not serve either
    attach(thinker, SETTINGS)
    assert not fits(thinker)
    for step in (CachedStep, StaticStep):
        with pytest.raises(ValueError, match="wrapped modules"):
            step(thinker, thinker.new_cache(1, 8))
    with pytest.raises(ValueError, match="cannot take a compiled step"):
        stepper(thinker, thinker.new_cache(1, 8), compiled=True)
    merge(thinker)
    assert fits(thinker)


@pytest.mark.slow
@needs_compiler
def test_a_compiled_step_of_the_merged_model_equals_the_adapted_one() -> None:
    thinker = adapted()
    wanted = whole(thinker)
    merge(thinker)
    found = stepped(thinker, lambda model, cache: stepper(model, cache, compiled=True))
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


def test_a_fresh_adapter_does_nothing_and_alone_is_trained() -> None:
    thinker = plain()
    bytes_before, logits = fingerprint(thinker), whole(thinker)
    found = attach(thinker, LoraSettings(rank=3))
    assert len(found.names) == 8 and found.experts_left_out == 0
    assert torch.equal(whole(thinker.eval()), logits)
    names = [name for name, p in thinker.named_parameters() if p.requires_grad]
    assert len(names) == 16 and all("lora_" in name for name in names)
    shake(thinker)
    with recomputing([thinker], True):
        hidden = thinker(thinker.embed(IDS)).hidden
    lm_loss(hidden, IDS, thinker.head_weight()).total.backward()
    grads = {name: p.grad for name, p in thinker.named_parameters()}
    assert all((grads[name] is None) == ("lora_" not in name) for name in grads)
    with bare(thinker):
        assert fingerprint(thinker) == bytes_before and torch.equal(whole(thinker), logits)
    assert not torch.equal(whole(thinker), logits)
    with pytest.raises(InputError, match="has adapters already"):
        attach(thinker, SETTINGS)


def test_adapters_of_a_half_precision_base_are_kept_in_float32() -> None:
    thinker = plain().bfloat16()
    attach(thinker, SETTINGS)
    assert {p.dtype for p in adapter_tensors(thinker).values()} == {torch.float32}
    shake(thinker)
    assert thinker.eval()(thinker.embed(IDS)).hidden.dtype == torch.bfloat16
    assert merge(thinker) == 8 and thinker.token_table.weight.dtype == torch.bfloat16


def test_merging_gives_a_plain_thinker_that_can_be_written(tmp_path: Path) -> None:
    thinker = adapted()
    wanted, layers = whole(thinker), len(adapters(thinker))
    assert merge(thinker) == layers and not adapters(thinker)
    assert merge(thinker) == 0
    torch.testing.assert_close(whole(thinker), wanted, atol=TOLERANCE, rtol=0)
    assert thinker.state_dict().keys() == plain().state_dict().keys()
    save_thinker(thinker, tmp_path)
    broken = adapted()
    with torch.no_grad():
        next(iter(adapters(broken).values())).lora_B[NAME].weight[0, 0] = float("inf")
    with pytest.raises(RuntimeError, match="not finite"):
        merge(broken)


def test_saved_adapters_are_small_and_come_back(tmp_path: Path) -> None:
    thinker = adapted()
    wanted = whole(thinker)
    save_adapter(tmp_path, thinker, SETTINGS, "base-one")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{ADAPTER}.json",
        f"{ADAPTER}.safetensors",
    ]
    path = tmp_path / f"{ADAPTER}.safetensors"
    assert path.stat().st_size < 4 * sum(t.numel() for t in adapter_tensors(thinker).values()) + 4e3
    facts = {**to_dict(SETTINGS), "base": "base-one"}
    other, state = plain(), torch.get_rng_state()
    load_adapter(other, facts, path, "base-one")
    assert torch.equal(whole(other), wanted) and torch.equal(torch.get_rng_state(), state)
    assert not any(p.requires_grad for p in other.parameters())


def test_what_does_not_belong_is_refused(tmp_path: Path) -> None:
    save_adapter(tmp_path, adapted(), SETTINGS, "base-one")
    path = tmp_path / f"{ADAPTER}.safetensors"
    facts = {**to_dict(SETTINGS), "base": "base-one"}
    other = plain()
    with pytest.raises(InputError, match="base base-one, but this Thinker is base-two"):
        load_adapter(other, facts, path, "base-two")
    assert not adapters(other)
    with pytest.raises(InputError, match="8 of 16 tensors differ"):
        load_adapter(plain(width=30), facts, path, "base-one")
    with pytest.raises(InputError, match="8 of 8 tensors differ"):
        load_adapter(plain(), {**facts, "modules": ["qkv", "out"]}, path, "base-one")
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="not a readable safetensors"):
        load_adapter(plain(), facts, path, "base-one")


def test_experts_have_no_adapters_and_that_is_said() -> None:
    moe = MoEConfig(experts=4, active=2, ffn_width=16)
    mixed = plain(moe=moe, dense_layers=(0,))
    found = attach(mixed, SETTINGS)
    assert found.experts_left_out == 4 and len(found.names) == 6
    shake(mixed)
    stepwise = stepped(mixed.eval())
    torch.testing.assert_close(stepwise, whole(mixed), atol=TOLERANCE, rtol=0)
    with pytest.raises(InputError, match="experts are stacked tensors"):
        attach(plain(moe=moe), LoraSettings(modules=("gate_up", "down")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"dropout": 1.0}, "dropout in"),
        ({"modules": ()}, "no module to adapt"),
        ({"modules": ("q_proj",)}, "a block has no 'q_proj'"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LoraSettings(**changes)
