"""Losses and a text tower to teach a vision tower with captions.

Knows: two-way sigmoid contrast (arXiv 2303.15343) and predicting which words a caption contains
(a bag of words, arXiv 2411.03313), which learns single attributes much sooner than contrast.
Does not know: pictures or towers; it sees embeddings and ids.
Costs: B x B similarities, and one linear map from the picture vector to the vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumoomni.model.encoder import Encoder, EncoderConfig, sinusoids


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    """A small bidirectional encoder over caption ids, mean-pooled."""

    vocab_size: int
    encoder: EncoderConfig
    shared_width: int
    max_tokens: int = 64


class ContrastHead(nn.Module):
    """Text tower, the two maps into the shared space, the word head, temperature and bias."""

    positions: Tensor

    def __init__(self, config: TextTowerConfig, image_width: int) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.width
        self.token_table = nn.Embedding(config.vocab_size, width)
        self.encoder = Encoder(config.encoder)
        self.text_map = nn.Linear(width, config.shared_width, bias=False)
        self.image_map = nn.Linear(image_width, config.shared_width, bias=False)
        self.word_head = nn.Linear(image_width, config.vocab_size)
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-10.0))
        nn.init.normal_(self.token_table.weight, std=0.02)
        positions = sinusoids(config.max_tokens, width) * 0.02
        self.register_buffer("positions", positions, persistent=False)

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
        logits = self.word_head(cls).float()
        counts = torch.zeros_like(logits).scatter_add_(1, ids, mask.to(logits.dtype))
        return -(F.log_softmax(logits, -1) * counts / counts.sum(1, keepdim=True)).sum()
