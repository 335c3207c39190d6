"""Checkpoints of transformers' Qwen3 and Qwen3-MoE give the same logits here, in both directions.

Tolerance: logits of these models reach about 4 in size (weights N(0, 0.2)); the worst difference
measured over all cases was 4e-6, so 4e-5 is allowed. A wrong head order or norm moves them by > 1.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lumoomni.errors import InputError
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.hf_weights import load_thinker, save_thinker
from lumoomni.model.thinker import Thinker

transformers = pytest.importorskip("transformers")

TOLERANCE = 4e-5
SHAPE: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
CASES: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "biased": {"attention_bias": True},
    "windowed": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "moe": {**MOE, "norm_topk_prob": True, "mlp_only_layers": [1]},
    "moe raw": {**MOE, "norm_topk_prob": False, "decoder_sparse_step": 2},
}


def peer(case: str) -> Any:
    torch.manual_seed(0)
    changes = {**SHAPE, **CASES[case]}
    if case.startswith("moe"):
        model = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**changes))
    else:
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**changes))
    for name, parameter in model.named_parameters():
        mean = 1.0 if "norm" in name else 0.0
        torch.nn.init.normal_(parameter, mean=mean, std=0.2)
    return model.eval()


def ids_of(batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, 61, (batch, length), generator=torch.Generator().manual_seed(1))


def logits_of(thinker: Thinker, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    return thinker.head(thinker(thinker.embed(ids), **kwargs).hidden)


@pytest.mark.parametrize("case", list(CASES))
@torch.no_grad()
def test_logits_equal_in_both_directions(case: str, tmp_path: Path) -> None:
    model = peer(case)
    model.save_pretrained(tmp_path / "theirs")
    thinker = load_thinker(tmp_path / "theirs").eval()
    ids = ids_of(2, 12)
    want = model(input_ids=ids).logits
    assert want.abs().max() > 1
    assert (logits_of(thinker, ids) - want).abs().max() < TOLERANCE
    save_thinker(thinker, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", dtype=torch.float32
    ).eval()
    assert (again(input_ids=ids).logits - want).abs().max() < TOLERANCE
    reloaded = load_thinker(tmp_path / "ours")
    for name, parameter in reloaded.named_parameters():
        assert torch.equal(parameter, dict(thinker.named_parameters())[name]), name


@pytest.mark.parametrize("case", ["tied", "windowed", "moe"])
@torch.no_grad()
def test_cached_left_padded_logits_equal(case: str, tmp_path: Path) -> None:
    model = peer(case)
    model.save_pretrained(tmp_path)
    thinker = load_thinker(tmp_path).eval()
    ids = ids_of(2, 12)
    keys = torch.ones(2, 12, dtype=torch.bool)
    keys[1, :5] = False
    position_ids = (keys.long().cumsum(1) - 1).clamp(min=0)
    want = model(input_ids=ids, attention_mask=keys.long(), position_ids=position_ids).logits
    cache = thinker.new_cache(2, 12)
    parts = [logits_of(thinker, ids[:, :9], attention=AttentionSpec(keys=keys[:, :9]), cache=cache)]
    parts += [logits_of(thinker, ids[:, t : t + 1], cache=cache) for t in range(9, 12)]
    got = torch.cat(parts, 1)
    assert (got - want)[keys].abs().max() < TOLERANCE


@torch.no_grad()
def test_stacked_experts_and_shards_load_too(tmp_path: Path) -> None:
    model = peer("moe raw")
    model.save_pretrained(tmp_path)
    before = load_thinker(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    stacked = {k: v for k, v in tensors.items() if ".experts." not in k}
    names = sorted({k.split(".experts.")[0] for k in tensors if ".experts." in k})
    for name in names:

        def part(kind: str, e: int, name: str = name) -> torch.Tensor:
            return tensors[f"{name}.experts.{e}.{kind}_proj.weight"]

        gate_up = [torch.cat([part("gate", e), part("up", e)]) for e in range(4)]
        stacked[f"{name}.experts.gate_up_proj"] = torch.stack(gate_up)
        stacked[f"{name}.experts.down_proj"] = torch.stack([part("down", e) for e in range(4)])
    (tmp_path / "model.safetensors").unlink()
    half = sorted(stacked)[::2]
    files = {"a.safetensors": half, "b.safetensors": sorted(set(stacked) - set(half))}
    for file, keys in files.items():
        save_file({k: stacked[k].contiguous() for k in keys}, tmp_path / file)
    weight_map = {k: file for file, keys in files.items() for k in keys}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    after = load_thinker(tmp_path)
    for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    peer("untied").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.extra"] = tensors.pop("model.norm.weight")
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"model\.norm\.weight.*model\.extra"):
        load_thinker(tmp_path)


def test_wrong_shapes_and_unknown_models_are_refused(tmp_path: Path) -> None:
    peer("untied").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 41}))
    with pytest.raises(InputError, match=r"\(40, 24\).*\(41, 24\)"):
        load_thinker(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(InputError, match="llama"):
        load_thinker(tmp_path)


def test_half_precision_keeps_exact_rotary_tables(tmp_path: Path) -> None:
    peer("tied").save_pretrained(tmp_path)
    thinker = load_thinker(tmp_path, torch.bfloat16)
    assert thinker.token_table.weight.dtype == torch.bfloat16
    assert torch.equal(thinker.rope.cos, load_thinker(tmp_path).rope.cos)
