"""An independent ear: pocketsphinx with a bigram grammar of the world's own sentences.

Knows: building an n-gram language model (ARPA) and a dictionary from sampled sentences.
Does not know: our models. Its errors on espeak-ng's own speech are reported beside ours.
Costs: about real time on one core.
"""

import importlib.util
import itertools
import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lumoomni.data.world.language import normalise
from lumoomni.data.world.sentences import PRONUNCIATIONS, sentence

SAMPLES = 6000
DISCOUNT = 0.5


def judge_available() -> bool:
    """True when pocketsphinx is installed."""
    return importlib.util.find_spec("pocketsphinx") is not None


def judge_hears(sounds: Sequence[np.ndarray]) -> list[str]:
    """What pocketsphinx understands of clips float32[T] at 16 kHz."""
    import pocketsphinx  # an extra: only `lumo eval` needs it

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "world.lm"
        model.write_text(bigram_arpa([sentence(0, "train", i) for i in range(SAMPLES)]))
        decoder = pocketsphinx.Decoder(lm=str(model), loglevel="FATAL", samprate=16000.0)
        for word, sounds_like in PRONUNCIATIONS.items():
            if decoder.lookup_word(word) is None:
                spoken = sounds_like if isinstance(sounds_like, str) else sounds_like[0]
                decoder.add_word(word, spoken, True)
        out = []
        for samples in sounds:
            pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
            decoder.start_utt()
            decoder.process_raw(pcm, full_utt=True)
            decoder.end_utt()
            found = decoder.hyp()
            out.append("" if found is None else found.hypstr)
        return out


def bigram_arpa(sentences: Sequence[str]) -> str:
    """A back-off bigram with absolute discounting, in ARPA format (log10)."""
    ones: Counter[str] = Counter()
    twos: Counter[tuple[str, str]] = Counter()
    for text in sentences:
        words = ["<s>", *normalise(text).split(), "</s>"]
        ones.update(words)
        twos.update(itertools.pairwise(words))
    total = sum(ones.values())
    after: Counter[str] = Counter(first for first, _ in twos)
    lines = ["\\data\\", f"ngram 1={len(ones)}", f"ngram 2={len(twos)}", "", "\\1-grams:"]
    for word in sorted(ones):
        weight = DISCOUNT * after[word] / ones[word] if after[word] else 1.0
        lines.append(f"{math.log10(ones[word] / total):.4f} {word} {math.log10(weight):.4f}")
    lines += ["", "\\2-grams:"]
    for (first, second), count in sorted(twos.items()):
        lines.append(f"{math.log10((count - DISCOUNT) / ones[first]):.4f} {first} {second}")
    return "\n".join([*lines, "", "\\end\\", ""])
