"""Objectives and a text tower that teach a vision tower with captions.

Knows: two-way sigmoid contrast (arXiv 2303.15343); predicting which words a caption has (a bag of
words, arXiv 2411.03313); predicting each word at its place, all in parallel, from the patches
or one after the other (arXiv 2306.07915), which teaches what is where.
Does not know: pictures or towers; it sees embeddings and ids. Thrown away after training.
Costs: B x B similarities, one map to the vocabulary, and a two-layer reader of the patches.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.encoder import Encoder, EncoderConfig, sinusoids
from lumoomni.model.fused import whole_attention


@dataclass(frozen=True, kw_only=True)
class CaptionHeadsConfig:
    """`encoder` shapes the text tower; `places_layers` the parallel caption reader."""

    vocab_size: int
    encoder: EncoderConfig
    shared_width: int = 128
    places_layers: int = 2
    max_tokens: int = 48


class PlaceReader(nn.Module):
    """One layer: place queries read the patches, then the places before them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.read_norm = nn.LayerNorm(width)
        self.read = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mix_norm = nn.LayerNorm(width)
        self.mix = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, patches: Tensor) -> Tensor:
        query = self.read_norm(x)
        x = x + _read(self.read, query, patches)
        query = self.mix_norm(x)
        length = x.shape[1]
        before = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        x = x + _read(self.mix, query, query, before)
        return x + self.mlp(x)


def _read(
    layer: nn.MultiheadAttention, x: Tensor, source: Tensor, mask: Tensor | None = None
) -> Tensor:
    """What `layer` gives for queries x [B, T, D], keys and values of source [B, S, D]; mask [T, S]
    is True where may be read. torch's own attention spends most of its time in its backward."""
    width, heads = x.shape[-1], layer.num_heads
    weight, bias = layer.in_proj_weight, layer.in_proj_bias
    q = F.linear(x, weight[:width], bias[:width]).unflatten(-1, (heads, -1))
    kv = F.linear(source, weight[width:], bias[width:]).unflatten(-1, (2, heads, -1))
    k, v = kv.permute(2, 0, 3, 1, 4)
    read = whole_attention(q.transpose(1, 2), k, v, mask)
    return layer.out_proj(read.transpose(1, 2).flatten(2))


class CaptionHeads(nn.Module):
    """Text tower, maps into the shared space, word and place predictors, temperature and bias."""

    positions: Tensor

    def __init__(self, config: CaptionHeadsConfig, image_width: int) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.width
        self.token_table = nn.Embedding(config.vocab_size, width)
        self.encoder = Encoder(config.encoder)
        self.text_map = nn.Linear(width, config.shared_width, bias=False)
        self.image_map = nn.Linear(image_width, config.shared_width, bias=False)
        self.word_head = nn.Linear(image_width, config.vocab_size)
        self.told_table = nn.Embedding(config.vocab_size, image_width)
        self.place_table = nn.Parameter(torch.randn(config.max_tokens, image_width) * 0.2)
        self.readers = nn.ModuleList(
            PlaceReader(image_width, 4) for _ in range(config.places_layers)
        )
        self.place_head = nn.Linear(image_width, config.vocab_size)
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-10.0))
        nn.init.normal_(self.token_table.weight, std=0.02)
        nn.init.normal_(self.told_table.weight, std=0.2)
        positions = sinusoids(config.max_tokens, width) * 0.02
        self.register_buffer("positions", positions, persistent=False)

    @torch.no_grad()
    def expect(self, ids: Tensor) -> None:
        """Start the word predictors from how often each id [K] was seen in captions.

        Learning the vocabulary's frequencies from a thousand equal guesses costs the first fifty
        updates and swamps the optimiser's second moments for as long again (LOG.md).
        """
        counts = torch.bincount(ids, minlength=self.config.vocab_size).float()
        guess = ((counts + 0.01) / (counts + 0.01).sum()).log()
        self.word_head.bias.copy_(guess)
        self.place_head.bias.copy_(guess)

    def text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids [B, T], mask [B, T] -> unit vectors [B, S]."""
        x = self.token_table(ids) + self.positions[: ids.shape[1]]
        x = self.encoder(x, mask) * mask[..., None]
        pooled = x.sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(self.text_map(pooled).float(), dim=-1)

    def image(self, cls: Tensor) -> Tensor:
        """cls [B, D] -> unit vectors [B, S]."""
        return F.normalize(self.image_map(cls).float(), dim=-1)

    def contrast(self, images: Tensor, texts: Tensor, same: Tensor) -> Tensor:
        """Sigmoid loss summed over the batch; `same` [B, B] is True where captions are equal.

        Pairs with equal captions count as matches, so a repeated caption is no false negative.
        """
        logits = images @ texts.T * self.log_scale.exp() + self.bias
        sign = torch.where(same, 1.0, -1.0)
        return -F.logsigmoid(sign * logits).sum()

    def words(self, cls: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of the caption's word counts from the picture vector, summed over B."""
        return _bag_loss(self.word_head(cls), ids, mask)

    def places(
        self, patches: Tensor, ids: Tensor, mask: Tensor, told: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy of each caption word from patches [B, N, D]; mean a caption, summed.

        `told` [B] is True for captions whose earlier words may be read (predicted in order);
        the others are predicted blindly, all words at once (None: all of them).
        """
        x = self.place_table[: ids.shape[1]].expand(len(ids), -1, -1)
        if told is not None:
            before = F.pad(self.told_table(ids[:, :-1]), (0, 0, 1, 0))
            x = x + before * told[:, None, None]
        for reader in self.readers:
            x = reader(x, patches)
        logits = self.place_head(x).float().transpose(1, 2)
        losses = F.cross_entropy(logits, ids, reduction="none") * mask
        return (losses.sum(1) / mask.sum(1)).sum()


def _bag_loss(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """logits [K, V] against the share of each id among ids [K, T] where mask; summed over K."""
    logits = logits.float()
    counts = torch.zeros_like(logits).scatter_add_(1, ids, mask.to(logits.dtype))
    return -(F.log_softmax(logits, -1) * counts / counts.sum(1, keepdim=True)).sum()
