"""Audits of hearing and speaking: word error rates with intervals. Measures, never judges.

Costs: one forward of the audio tower for each clip.
"""

from collections.abc import Sequence

import jiwer

from lumoomni.data.world.language import normalise
from lumoomni.errors import InputError
from lumoomni.gates import Metric, bootstrap_ratio

NOTHING = "[nothing]"


def word_errors(references: Sequence[str], heard: Sequence[str]) -> Metric:
    """Corpus word error rate after normalisation, with a bootstrap interval over utterances.

    Raises InputError when a reference has no words: its error rate would be undefined.
    """
    errors, words = [], []
    for reference, text in zip(references, heard, strict=True):
        wanted = normalise(reference)
        if not wanted:
            raise InputError(
                f"the text {reference!r} has 0 words that a recogniser can hear, which are spelled "
                "with a to z and 0 to 9; take it out of what is measured"
            )
        result = jiwer.process_words(wanted, normalise(text) or NOTHING)
        errors.append(float(result.substitutions + result.deletions + result.insertions))
        words.append(float(len(wanted.split())))
    return bootstrap_ratio(errors, words)


def derange(items: Sequence[str]) -> list[str]:
    """Every item replaced by another, different one: the wrong texts of an ablation.

    Raises InputError when the items are all the same.
    """
    items = list(items)
    for shift in range(1, len(items)):
        moved = items[shift:] + items[:shift]
        if all(normalise(a) != normalise(b) for a, b in zip(items, moved, strict=True)):
            return moved
    distinct = sorted(set(items))
    if len(distinct) < 2:
        raise InputError(
            f"the {len(items)} held-out texts are all the same, and a wrong one to compare with "
            "needs at least 2 that differ; give more data"
        )
    after = dict(zip(distinct, distinct[1:] + distinct[:1], strict=True))
    return [after[item] for item in items]
