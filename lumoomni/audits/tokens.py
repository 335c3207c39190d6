"""The audit of a token space: are its ids the same every time, in their places, and decodable?

Knows: how to ask a space's codecs, here and in another process, and what to demand of the numbers.
Does not know: how the space was made, or how results are shown.
Costs: seconds; a new process, and each input encoded six times and decoded once to three times.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from lumoomni.audits.token_codes import (
    WAYS,
    Measured,
    ask_again,
    drift,
    encode_each,
    in_places,
    in_training,
    margins,
    same_codec,
    sizes,
    texts,
)
from lumoomni.audits.token_decode import (
    Pair,
    codebook_order,
    decode_each,
    nearness,
    through_interface,
)
from lumoomni.audits.token_inputs import Inputs
from lumoomni.audits.token_process import Elsewhere, encode_elsewhere
from lumoomni.codecs.facts import CodecFacts, Coded, Kind
from lumoomni.gates import Check, Report, exact
from lumoomni.uti.interface import UTI
from lumoomni.uti.space import TokenSpace


@dataclass(frozen=True, kw_only=True)
class TokenAuditConfig:
    """How many inputs of the micro-world are taken, and what is demanded of codes and decoding.

    `min_own` is the least share of decoded media nearer to their original than to its mirror image,
    `min_order` of sounds that decode best with their codebooks in order.
    """

    pictures: int = 24
    sentences: int = 16
    max_drift: float = 0.0
    min_own: float = 0.9
    min_order: float = 0.9


@dataclass(frozen=True)
class TokenAudit:
    """The report, codes as they came, and pairs of originals and decoded media to look at."""

    report: Report
    coded: Mapping[Kind, Sequence[Coded]] = field(default_factory=dict)
    pairs: Mapping[Kind, Sequence[Pair]] = field(default_factory=dict)


Asked = Callable[[Mapping[Kind, Sequence[np.ndarray]], Sequence[str]], Elsewhere]


def audit_folder(uti: UTI, folder: Path, inputs: Inputs) -> TokenAudit:
    """Measure a space that was opened from `folder`, which another process opens too."""
    return audit(uti, inputs, partial(encode_elsewhere, folder))


def audit(uti: UTI, inputs: Inputs, elsewhere: Asked) -> TokenAudit:
    """Measure; `elsewhere` encodes in another process. What a codec fails at is not measured, which
    no check forgives, and a note says why."""
    found = Measured()
    media: dict[Kind, list[np.ndarray]] = {}
    coded: dict[Kind, Sequence[Coded]] = {}
    for facts in uti.space.codecs:
        media[facts.kind] = inputs.of(facts)
        coded[facts.kind], encoded = encode_each(uti.codecs[facts.kind], media[facts.kind])
        found.add(encoded)
    asked: dict[Kind, list[np.ndarray]] = {kind: media[kind] for kind in media if coded[kind]}
    there = elsewhere(asked, inputs.texts)
    if there.problem:
        found.notes["process"] = there.problem
    found.add(texts(uti, inputs.texts, None if there.problem else there.texts))
    found.add(same_codec(uti, there.facts))
    pairs: dict[Kind, Sequence[Pair]] = {}
    for facts in uti.space.codecs:
        pairs[facts.kind] = _one_codec(
            uti, facts, inputs, media[facts.kind], coded[facts.kind], there, found
        )
    return TokenAudit(Report(metrics=found.metrics, notes=found.notes), coded, pairs)


def _one_codec(
    uti: UTI,
    facts: CodecFacts,
    inputs: Inputs,
    media: Sequence[np.ndarray],
    coded: Sequence[Coded],
    there: Elsewhere,
    found: Measured,
) -> list[Pair]:
    kind, codec = facts.kind, uti.codecs[facts.kind]
    training = in_training(codec)
    found.metrics[f"{kind}.training"] = exact(len(training))
    found.metrics[f"{kind}.codebooks"] = exact(facts.codebooks)
    if training:
        found.notes[f"{kind}.training"] = f"in training mode: {', '.join(training[:3])}"
    if not coded:
        return []
    found.add(ask_again(codec, media, coded))
    if kind in there.coded:
        found.add(drift(facts, "process", coded, there.coded[kind]))
    segments = list(inputs.pictures if kind == "image" else inputs.sounds)
    placed, spans = in_places(uti, facts, segments, coded)
    found.add(placed)
    found.add(sizes(uti, codec, coded))
    found.add(margins(codec, media))
    if not facts.decodes:
        found.notes[f"{kind}.decode"] = f"{facts.name} only encodes; nothing was decoded"
        return []
    pairs, decoded = decode_each(codec, media, coded)
    found.add(decoded)
    found.add(nearness(facts, pairs))
    if len(pairs) == len(media):
        found.add(codebook_order(codec, coded, pairs))
        found.add(through_interface(uti, spans, pairs))
    return pairs


def checks(space: TokenSpace, config: TokenAuditConfig) -> tuple[Check, ...]:
    """The gate of a space, without a baseline."""
    found = text_checks()
    for facts in space.codecs:
        found += codec_checks(
            facts.kind, facts.codebooks, config, side=bool(facts.side), decodes=facts.decodes
        )
    return tuple(found)


def text_checks() -> list[Check]:
    """What is demanded of text."""
    return [
        _all("text.back", "text must come back from its ids to the letter"),
        _all("text.inside", "text must give ids of TEXT alone, whatever it spells"),
        _all("text.process", "text must give the same ids in another process"),
    ]


def codec_checks(
    kind: Kind,
    codebooks: int,
    config: TokenAuditConfig,
    *,
    side: bool = False,
    decodes: bool = True,
) -> list[Check]:
    """What is demanded of one codec; `side` says whether it needs side data."""
    found = [
        _all(f"{kind}.encoded", f"every {kind} input must be encoded, and there must be some"),
        _all(f"{kind}.facts", "the stored codec must be the one that the space names"),
        Check(
            metric=f"{kind}.training",
            op="<=",
            threshold=0.0,
            why="parts in training mode change codes from call to call",
        ),
        Check(
            metric=f"{kind}.codebooks",
            op="==",
            threshold=float(codebooks),
            why="each codebook has a range of its own",
        ),
        *_drift_checks(kind, codebooks, config, side),
    ]
    named = {
        "ids.inside": "each id must lie in the range of its codebook, in their order",
        "ids.equal": "an id must be its range's start plus the code",
        "ids.count": "the number of ids must be what the codec's facts say",
        "ids.back": "ids must give back the codes that they were made of",
        "sizes.codes": "codes must stay below the size of their range",
    }
    if decodes:
        named["sizes.top"] = "the largest code of each range must decode"
        named["sizes.beyond"] = "a code beyond its range must be refused"
    found += [_all(f"{kind}.{name}", why) for name, why in named.items()]
    return found + (_decode_checks(kind, codebooks, config) if decodes else [])


def _all(metric: str, why: str) -> Check:
    return Check(metric=metric, op=">=", threshold=1.0, why=why)


def _drift_checks(kind: Kind, codebooks: int, config: TokenAuditConfig, side: bool) -> list[Check]:
    why = {
        "again": "a codec must give the same codes every time",
        "company": "codes must not depend on what else is in the batch",
        "threads": "codes must not depend on the number of threads",
        "process": "another process must give the same codes from the stored codec",
    }
    found = []
    for way in WAYS:
        names = [f"{kind}.drift.{way}"]
        if codebooks > 1:
            names += [f"{names[0]}.cb{q}" for q in range(codebooks)]
        found += [
            Check(metric=name, op="<=", threshold=config.max_drift, why=why[way]) for name in names
        ]
        if side:
            found.append(_all(f"{kind}.side.{way}", "side data must be the same every time"))
    return found


def _decode_checks(kind: Kind, codebooks: int, config: TokenAuditConfig) -> list[Check]:
    shape = {
        "image": {"size": "a decoded picture must have the codec's size"},
        "audio": {
            "rate": "decoded sound must have the codec's sample rate",
            "channels": "decoded sound must have the codec's channels",
            "length": "decoded sound must be as long as it was, within one frame",
        },
    }[kind]
    named = {
        "made": "every code must decode to media of its kind",
        **shape,
        "finite": "decoded values must be finite",
        "same": "decoding again, from ids, must give the same bits",
    }
    found = [_all(f"{kind}.decode.{name}", why) for name, why in named.items()]
    why = "what is decoded must be nearer to its original than to that turned around"
    found.append(Check(metric=f"{kind}.own", op=">=", threshold=config.min_own, why=why))
    if codebooks > 1:
        why = "codes must decode better with their codebooks in order than in reverse"
        found.append(Check(metric=f"{kind}.order", op=">=", threshold=config.min_order, why=why))
    return found
