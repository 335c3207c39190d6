"""The perceiver connector: the seed's exact sizes, and a set of patches as its input."""

import pytest
import torch
from torch import nn

from lumoomni.model.perceiver import PerceiverConnector, PerceiverConnectorConfig, ResamplerBlock
from lumoomni.model.vision import VisionFeatures

SMALL = PerceiverConnectorConfig(source_width=12, target_width=20, latents=5, width=16, heads=4)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_seeds_sizes_are_exact() -> None:
    with torch.device("meta"):
        made = PerceiverConnector(
            PerceiverConnectorConfig(source_width=1152, target_width=4096, source_norm=True)
        )
    assert count(made.resampler) == 6_927_872
    assert count(made.up) + count(made.down) == 75_517_952
    assert made.source_norm is not None and count(made.source_norm) == 2_304
    assert count(made) == 82_445_824 + 2_304
    assert made.config.positions == 64


def test_a_block_is_torchs_attention() -> None:
    torch.manual_seed(0)
    block, peer = ResamplerBlock(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([block.query.weight, block.key_value.weight]))
        peer.in_proj_bias.copy_(torch.cat([block.query.bias, block.key_value.bias]))
        peer.out_proj.weight.copy_(block.out.weight)
        peer.out_proj.bias.copy_(block.out.bias)
        block.down.weight.zero_()
        block.down.bias.zero_()
    latents, patches = torch.randn(2, 5, 16), torch.randn(2, 9, 16)
    wanted = latents + peer(block.attention_norm(latents), patches, patches)[0]
    torch.testing.assert_close(block(latents, patches), wanted)


def test_any_number_of_patches_gives_as_many_positions_in_any_order() -> None:
    torch.manual_seed(0)
    made = PerceiverConnector(SMALL)
    for patches in (1, 7, 30):
        features = VisionFeatures(cls=torch.zeros(3, 12), patches=torch.randn(3, patches, 12))
        out = made.picture(features)
        assert out.shape == (3, 5, 20)
        order = torch.randperm(patches)
        torch.testing.assert_close(made(features.patches[:, order]), out)
        # One picture does not read another.
        torch.testing.assert_close(made(features.patches[1:2]), out[1:2])


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="16 does not divide into 3 heads"):
        PerceiverConnectorConfig(source_width=4, target_width=4, width=16, heads=3)
    with pytest.raises(ValueError, match="latents, layers and mlp_ratio"):
        PerceiverConnectorConfig(source_width=4, target_width=4, latents=0)
