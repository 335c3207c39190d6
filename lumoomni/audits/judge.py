"""An independent ear: pocketsphinx with the grammar of the world's captions.

Knows: the grammar and the words that its dictionary lacks.
Does not know: our models. It hears espeak-ng speech well only within a grammar (free sentences
with a bigram came out at 66 % word errors on espeak-ng itself), so it is asked about captions, and
its errors on espeak-ng's own speech are reported beside ours.
Costs: about real time on one core.
"""

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lumoomni.data.world.language import caption
from lumoomni.data.world.scene import make_scene
from lumoomni.data.world.sentences import caption_grammar


def judge_available() -> bool:
    """True when pocketsphinx is installed."""
    return importlib.util.find_spec("pocketsphinx") is not None


def judged_captions(seed: int, count: int) -> list[str]:
    """Held-out captions for the judge."""
    return [caption(make_scene(seed, "seen", index)) for index in range(count)]


def judge_hears(sounds: Sequence[np.ndarray]) -> list[str]:
    """What pocketsphinx understands of spoken captions, float32[T] at 16 kHz."""
    import pocketsphinx  # an extra: only `lumo eval` needs it

    with tempfile.TemporaryDirectory() as folder:
        grammar = Path(folder) / "captions.gram"
        grammar.write_text(caption_grammar())
        decoder = pocketsphinx.Decoder(jsgf=str(grammar), loglevel="FATAL", samprate=16000.0)
        return [_hear(decoder, samples) for samples in sounds]


def _hear(decoder: "object", samples: np.ndarray) -> str:
    pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
    decoder.start_utt()  # type: ignore[attr-defined]
    decoder.process_raw(pcm, full_utt=True)  # type: ignore[attr-defined]
    decoder.end_utt()  # type: ignore[attr-defined]
    found = decoder.hyp()  # type: ignore[attr-defined]
    return "" if found is None else found.hypstr
