"""Tiny random codecs of `transformers`, saved as their checkpoints are, with filled codebooks."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf

SOUND = ("encodec", "encodec48", "mimi", "dac")
PICTURE = ("chameleon", "emu3", "janus")
HALF = {"rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
PROCESSORS: dict[str, dict[str, Any]] = {
    "encodec": {"sampling_rate": 24000},
    "encodec48": {"sampling_rate": 48000},
    "mimi": {"sampling_rate": 24000},
    "dac": {"sampling_rate": 16000, "hop_length": 512},
    "chameleon": {"rescale_factor": 0.0078, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
    "emu3": HALF,
    "janus": HALF,
}


def model(name: str, entries: int = 64) -> torch.nn.Module:
    """The model in evaluation mode; every codebook holds vectors that its encoder gives.

    As they are made, most are zero or far from what is coded: there would be one code for all, and
    every test would pass.
    """
    torch.manual_seed(0)
    made = MODELS[name](entries).eval()
    with torch.no_grad():
        if name in PICTURE:
            _fill_pictures(made, name)
        elif name != "dac":
            _fill_sound(made)
    return made


def _fill_sound(made: Any) -> None:
    """EnCodec and Mimi: each book holds what the books before it left over, with some noise."""
    channels = getattr(made.config, "audio_channels", 1)
    layers = [module for module in made.modules() if hasattr(module, "codebook")]

    def encode(x: torch.Tensor, layer: Any, plain: Any) -> torch.Tensor:
        book, rows = layer.codebook, x.permute(0, 2, 1).reshape(-1, x.shape[1])
        picks = rows[torch.randint(len(rows), (book.codebook_size,))]
        held = book.embed_sum if hasattr(book, "embed_sum") else book.embed
        held.copy_(picks + 0.2 * rows.std() * torch.randn(picks.shape))
        if hasattr(book, "_embed"):
            book._embed = None  # Mimi remembers it
        return plain(x)

    for layer in layers:
        layer.encode = partial(encode, layer=layer, plain=layer.encode)
    wave = torch.from_numpy(sound(9, 47000, channels).reshape(1, channels, -1))
    more = {"bandwidth": 3.0} if made.config.model_type == "encodec" else {}
    more = {"bandwidth": 6.0} if channels == 2 else more
    made.encode(wave, **more)
    for layer in layers:
        del layer.encode


def _fill_pictures(made: Any, name: str) -> None:
    """Rows of what the encoder gives, each stretched by a factor of its own: not of length one."""
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    if name == "emu3":
        hidden = made.encoder(pixels[:, None].repeat(1, 4, 1, 1, 1))
        found = made.quant_conv(hidden.permute(0, 2, 1, 3, 4)).permute(0, 2, 3, 4, 1)
    else:
        found = made.quant_conv(made.encoder(pixels)).permute(0, 2, 3, 1)
    rows = found.reshape(-1, found.shape[-1])
    book = made.quantize.embedding.weight
    picks = rows[torch.randperm(len(rows))[torch.arange(len(book)) % len(rows)]]
    book.copy_(picks * (0.5 + torch.rand(len(book), 1)))


def write_codec(folder: Path, name: str, entries: int = 64) -> Path:
    """A checkpoint folder: config.json, model.safetensors, preprocessor_config.json."""
    model(name, entries).save_pretrained(folder)  # type: ignore[operator]
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[name]))
    return folder


def sound(seed: int, samples: int, channels: int = 1) -> np.ndarray:
    """float32 [S], or [2, S]: tones and noise."""
    stream = np.random.default_rng(seed)
    shape = (samples,) if channels == 1 else (channels, samples)
    time = np.arange(samples) / 24000
    tone = np.sin(2 * np.pi * stream.uniform(100, 2000) * time)
    return (0.3 * tone + 0.1 * stream.standard_normal(shape)).astype(np.float32)


def picture(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    """uint8 [H, W, 3] of noise over a ramp."""
    stream = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, width)[None, :, None] * stream.uniform(0, 200, 3)
    return (ramp + stream.uniform(0, 55, (height, width, 3))).astype(np.uint8)


def _encodec(entries: int) -> torch.nn.Module:
    return hf.EncodecModel(
        hf.EncodecConfig(
            num_filters=4,
            hidden_size=16,
            codebook_size=entries,
            target_bandwidths=[1.5, 3.0],
            num_lstm_layers=1,
        )
    )


def _encodec48(entries: int) -> torch.nn.Module:
    return hf.EncodecModel(
        hf.EncodecConfig(
            num_filters=4,
            hidden_size=16,
            codebook_size=entries,
            target_bandwidths=[3.0, 6.0],
            sampling_rate=48000,
            audio_channels=2,
            normalize=True,
            chunk_length_s=1.0,
            overlap=0.01,
            norm_type="time_group_norm",
            use_causal_conv=False,
            num_lstm_layers=1,
        )
    )


def _mimi(entries: int) -> torch.nn.Module:
    return hf.MimiModel(
        hf.MimiConfig(
            num_filters=4,
            hidden_size=32,
            codebook_size=entries,
            codebook_dim=16,
            vector_quantization_hidden_dimension=16,
            num_quantizers=4,
            upsample_groups=32,
            num_hidden_layers=1,
            intermediate_size=32,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )


def _dac(entries: int) -> torch.nn.Module:
    return hf.DacModel(
        hf.DacConfig(
            encoder_hidden_size=8,
            decoder_hidden_size=64,
            n_codebooks=3,
            codebook_size=entries,
            codebook_dim=4,
        )
    )


def _chameleon(entries: int) -> torch.nn.Module:
    return hf.ChameleonVQVAE(
        hf.ChameleonVQVAEConfig(
            embed_dim=8,
            num_embeddings=entries,
            latent_channels=32,
            resolution=32,
            base_channels=32,
            channel_multiplier=[1, 1, 2],
            num_res_blocks=1,
        )
    )


def _emu3(entries: int) -> torch.nn.Module:
    return hf.Emu3VQVAE(
        hf.Emu3VQVAEConfig(
            codebook_size=entries,
            base_channels=32,
            channel_multiplier=[1, 1, 2],
            num_res_blocks=1,
            hidden_size=64,
            attn_resolutions=[2],
        )
    )


def _janus(entries: int) -> torch.nn.Module:
    return hf.JanusVQVAE(
        hf.JanusVQVAEConfig(
            embed_dim=8,
            num_embeddings=entries,
            latent_channels=32,
            base_channels=32,
            channel_multiplier=[1, 1, 2],
            num_res_blocks=1,
            num_patches=8,
        )
    )


MODELS = {
    "encodec": _encodec,
    "encodec48": _encodec48,
    "mimi": _mimi,
    "dac": _dac,
    "chameleon": _chameleon,
    "emu3": _emu3,
    "janus": _janus,
}
