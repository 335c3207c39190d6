"""Audits of hearing and speaking: word error rates with intervals. Measures, never judges.

Costs: one forward of the audio tower for each clip.
"""

from collections.abc import Sequence

import jiwer

from lumoomni.data.world.language import normalise
from lumoomni.gates import Metric, bootstrap_ratio

NOTHING = "[nothing]"


def word_errors(references: Sequence[str], heard: Sequence[str]) -> Metric:
    """Corpus word error rate after normalisation, with a bootstrap interval over utterances.

    Raises ValueError when a reference has no words: its error rate would be undefined.
    """
    errors, words = [], []
    for reference, text in zip(references, heard, strict=True):
        wanted = normalise(reference)
        if not wanted:
            raise ValueError(f"the reference {reference!r} has no words to be heard")
        result = jiwer.process_words(wanted, normalise(text) or NOTHING)
        errors.append(float(result.substitutions + result.deletions + result.insertions))
        words.append(float(len(wanted.split())))
    return bootstrap_ratio(errors, words)


def derange(items: Sequence[str]) -> list[str]:
    """Every item replaced by another, different one: the wrong texts of an ablation.

    Raises ValueError when the items are all the same.
    """
    items = list(items)
    for shift in range(1, len(items)):
        moved = items[shift:] + items[:shift]
        if all(normalise(a) != normalise(b) for a, b in zip(items, moved, strict=True)):
            return moved
    distinct = sorted(set(items))
    if len(distinct) < 2:
        raise ValueError(f"{len(items)} texts are all the same; there is no wrong one to compare")
    after = dict(zip(distinct, distinct[1:] + distinct[:1], strict=True))
    return [after[item] for item in items]
