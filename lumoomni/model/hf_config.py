"""The config.json of Hugging Face's Qwen3 and Qwen3-MoE <-> ThinkerConfig.

Knows: which of their settings mean which of ours, and what either cannot say.
Does not know: weights. Costs: nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lumoomni.config import read_object
from lumoomni.errors import InputError
from lumoomni.model.moe import MoEConfig
from lumoomni.model.rows import RowsConfig
from lumoomni.model.thinker import Thinker, ThinkerConfig

CODE = Path(__file__).parent / "modeling_lumoomni.py"
OURS = "lumoomni"
"""The model type of what Qwen3 cannot express."""


@dataclass(frozen=True)
class Making:
    """A maker (`model/routed.py`), the first id that is its own, and the first one of media."""

    maker: Thinker
    own: int
    media: int

    @classmethod
    def of(cls, maker: Thinker, rows: RowsConfig) -> "Making":
        """Whose rows these are."""
        return cls(maker, rows.start, rows.start + rows.markers)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a Hugging Face checkpoint folder")
    return read_object(path)


def config_from_hf(hf: dict[str, Any]) -> ThinkerConfig:
    """A ThinkerConfig from the fields of Qwen3 or Qwen3-MoE's config.json.

    Raises InputError for another model, a setting that is not supported, and a missing field.
    """
    try:
        return _config_from_hf(hf)
    except KeyError as error:
        raise InputError(
            f"the config.json of this {hf.get('model_type')} model has no {error.args[0]}; get a "
            "whole copy"
        ) from error


def _config_from_hf(hf: dict[str, Any]) -> ThinkerConfig:
    kind = hf.get("model_type")
    if kind not in ("qwen3", "qwen3_moe", OURS):
        raise InputError(
            f"model_type is {kind!r}; only 'qwen3', 'qwen3_moe' and {OURS!r} can be loaded"
        )
    if hf.get("maker_from") is not None:
        raise InputError(
            f"the model has matrices of their own for ids from {hf['maker_from']} on; it is what "
            "an export ends with, so give the build or artifact that it was made of"
        )
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise InputError(f"rope scaling {rope} is not supported; only the default rotary is")
    if hf.get("hidden_act", "silu") != "silu":
        raise InputError(f"hidden_act is {hf['hidden_act']!r}; only 'silu' is supported")
    layers, heads = hf["num_hidden_layers"], hf["num_attention_heads"]
    windowed = bool(hf.get("use_sliding_window")) and hf.get("sliding_window") is not None
    moe, dense = None, ()
    if kind == "qwen3_moe":
        moe = MoEConfig(
            experts=hf.get("num_experts") or hf["num_local_experts"],
            active=hf["num_experts_per_tok"],
            ffn_width=hf["moe_intermediate_size"],
            normalise=hf.get("norm_topk_prob", False),
        )
        stride, only = hf.get("decoder_sparse_step", 1), hf.get("mlp_only_layers") or []
        dense = tuple(i for i in range(layers) if i in only or (i + 1) % stride)
    return ThinkerConfig(
        vocab_size=hf["vocab_size"],
        width=hf["hidden_size"],
        layers=layers,
        heads=heads,
        kv_heads=hf.get("num_key_value_heads") or heads,
        head_width=hf.get("head_dim") or hf["hidden_size"] // heads,
        ffn_width=hf["intermediate_size"],
        rope_theta=hf.get("rope_theta") or rope.get("rope_theta", 10_000.0),
        norm_eps=hf.get("rms_norm_eps", 1e-6),
        qkv_bias=hf.get("attention_bias", False),
        out_bias=hf.get("attention_bias", False),
        tied=hf.get("tie_word_embeddings", False),
        window=hf["sliding_window"] if windowed else None,
        window_from=_window_from(hf, layers) if windowed else 0,
        moe=moe,
        dense_layers=dense,
        short_conv=hf.get("short_conv", 0),
        max_positions=hf.get("max_position_embeddings", 32768),
    )


def _window_from(hf: dict[str, Any], layers: int) -> int:
    """First layer with a window; raises InputError when windowed layers are not the last ones."""
    if hf["model_type"] == "qwen3_moe":
        return 0
    kinds = hf.get("layer_types")
    if kinds is None:
        return hf.get("max_window_layers", 28)
    begin = sum(kind == "full_attention" for kind in kinds)
    if kinds != ["full_attention"] * begin + ["sliding_attention"] * (layers - begin):
        raise InputError(f"layer_types {kinds} mixes windows; only full-then-sliding is supported")
    return begin


def config_to_hf(
    config: ThinkerConfig, dtype: torch.dtype, making: Making | None = None
) -> dict[str, Any]:
    """The config.json that makes transformers build the same model.

    Raises InputError for a shape that neither Qwen3 nor `modeling_lumoomni.py` can express.
    """
    if not config.qk_norm or config.qkv_bias != config.out_bias:
        raise InputError(
            "Qwen3 has QK-norm and biases on all or none of its attention matrices; this Thinker "
            f"has qk_norm={config.qk_norm}, qkv_bias={config.qkv_bias}, out_bias={config.out_bias}"
        )
    if config.moe is not None and config.window is not None and config.window_from > 0:
        raise InputError("Qwen3-MoE windows every layer or none; set window_from to 0")
    if config.moe is not None and config.short_conv:
        raise InputError(
            f"this Thinker has experts and a short convolution of {config.short_conv} taps, and "
            "transformers has no such model; train one with thinker.short_conv=0 to export it"
        )
    hf: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM" if config.moe is None else "Qwen3MoeForCausalLM"],
        "model_type": "qwen3" if config.moe is None else "qwen3_moe",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": config.qkv_bias,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tied,
        "use_sliding_window": config.window is not None,
        "sliding_window": config.window,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    if config.moe is None:
        own = _more_than_qwen3(config, making)
        return hf | {"max_window_layers": config.window_from} | own
    return hf | {
        "num_experts": config.moe.experts,
        "num_experts_per_tok": config.moe.active,
        "moe_intermediate_size": config.moe.ffn_width,
        "norm_topk_prob": config.moe.normalise,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(config.dense_layers),
    }


def _more_than_qwen3(config: ThinkerConfig, making: Making | None) -> dict[str, Any]:
    """What a folder says of a model that `modeling_lumoomni.py` has to build; nothing of others."""
    if not config.short_conv and making is None:
        return {}
    return {
        "architectures": ["LumoOmniForCausalLM"],
        "model_type": OURS,
        "auto_map": {
            "AutoConfig": f"{CODE.stem}.LumoOmniConfig",
            "AutoModel": f"{CODE.stem}.LumoOmniModel",
            "AutoModelForCausalLM": f"{CODE.stem}.LumoOmniForCausalLM",
        },
        "short_conv": config.short_conv,
        "maker_from": None if making is None else making.own,
        "media_from": None if making is None else making.media,
    }
