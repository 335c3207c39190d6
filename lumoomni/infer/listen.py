"""Transcription: sound to text through the audio tower's CTC head.

Knows: the recogniser's symbols are tokenizer ids of normalised text with a leading space.
Costs: one mel and one tower forward for a batch of clips.
"""

from collections.abc import Sequence

import numpy as np
import torch

from lumoomni.codecs.text import TextCodec
from lumoomni.media.mel import MelConfig, log_mel
from lumoomni.model.audio import AudioTower, ctc_greedy


@torch.inference_mode()
def transcribe(
    tower: AudioTower, text_codec: TextCodec, mel: MelConfig, clips: Sequence[np.ndarray]
) -> list[str]:
    """What is said in each clip (float32[T] at the mel's rate), in the recogniser's spelling."""
    mels = [log_mel(torch.from_numpy(clip)[None], mel)[0] for clip in clips]
    if not mels:
        return []
    lengths = torch.tensor([len(one) for one in mels])
    padded = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True)
    out = tower(padded, lengths)
    symbols = ctc_greedy(tower.log_probs(out.features), out.lengths)
    return [text_codec.decode(row).strip() for row in symbols]
