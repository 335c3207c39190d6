"""What a codec's codes are held to: the same every time, and in their places in the id space.

Knows: codes, ranges and how to ask a codec in several ways. Does not know: what codes sound or look
like (token_decode.py does), or thresholds. Costs: each input is encoded five times.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from lumoomni.codecs.facts import CodecFacts, Coded, MediaCodec
from lumoomni.gates import Metric, exact, wilson
from lumoomni.uti.interface import UTI, TokenSpan
from lumoomni.uti.space import unflatten

FAULTS = (ValueError, RuntimeError, IndexError)
"""What a codec raises for media or codes that it cannot take; anything else is a bug of ours."""
WAYS = ("again", "company", "threads", "process")
PERCENTILES = (1, 5, 50)
COMPANY = 3


@dataclass(frozen=True)
class Measured:
    """Numbers by name, and notes for a person."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Measured") -> None:
        """Take over what another one holds."""
        self.metrics.update(other.metrics)
        self.notes.update(other.notes)


def encode_each(codec: MediaCodec, media: Sequence[np.ndarray]) -> tuple[list[Coded], Measured]:
    """Codes of each, one by one, and the share that could be encoded at all.

    No codes at all when one fails: comparisons of what is left would say nothing of the rest.
    """
    kind, coded, problems = codec.facts.kind, [], []
    for place, one in enumerate(media):
        try:
            coded.append(codec.encode(one))
        except FAULTS as error:
            problems.append(f"input {place}: {error}")
    found = Measured({f"{kind}.encoded": wilson(len(coded), len(media))})
    if problems or not len(media):
        found.notes[f"{kind}.encoded"] = problems[0] if problems else "there were no inputs"
    return ([] if problems else coded), found


def in_training(codec: MediaCodec) -> list[str]:
    """Names of the modules of a codec, at any depth, that are in training mode."""
    own = {name: one for name, one in vars(codec).items() if isinstance(one, nn.Module)}
    return [
        f"{name}.{part}".rstrip(".")
        for name, module in own.items()
        for part, child in module.named_modules()
        if child.training
    ]


def ask_again(codec: MediaCodec, media: Sequence[np.ndarray], first: Sequence[Coded]) -> Measured:
    """Drift in this process: once more backwards, in company, and with another number of threads.

    A way that the codec fails in is not measured, and the note says why.
    """
    found = Measured()

    def threads() -> list[Coded]:
        with other_threads():
            return [codec.encode(one) for one in media]

    ways: dict[str, tuple[Sequence[Coded], Callable[[], list[Coded]]]] = {
        "again": (first, lambda: [codec.encode(one) for one in media[::-1]][::-1]),
        "company": ([*first, *first], lambda: _in_company(codec, media)),
        "threads": (first, threads),
    }
    for way, (before, ask) in ways.items():
        try:
            found.add(drift(codec.facts, way, before, ask()))
        except FAULTS as error:
            found.notes[f"{codec.facts.kind}.drift.{way}"] = f"encoding failed: {error}"
    return found


def _in_company(codec: MediaCodec, media: Sequence[np.ndarray]) -> list[Coded]:
    """All at once backwards, then in groups of three; in the order in which they came."""
    together = codec.encode_batch(media[::-1])[::-1]
    for start in range(0, len(media), COMPANY):
        together += codec.encode_batch(media[start : start + COMPANY])
    return together


@contextlib.contextmanager
def other_threads() -> Iterator[None]:
    """Two threads where there was one, else one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def drift(facts: CodecFacts, way: str, first: Sequence[Coded], other: Sequence[Coded]) -> Measured:
    """Share of codes that changed, in all and for each codebook, and of side data.

    Wilson intervals over codes: codes of one clip that change together make them too narrow, but
    the gate asks for none at all. A clip with another number of codes counts as changed altogether.
    """
    name, books = f"{facts.kind}.drift.{way}", facts.codebooks
    changed, total = np.zeros(books, np.int64), np.zeros(books, np.int64)
    found, sides = Measured(), 0
    for place, (a, b) in enumerate(zip(first, other, strict=False)):
        total += len(a.codes)
        sides += a.side == b.side
        if a.codes.shape != b.codes.shape:
            changed += len(a.codes)
            note = f"input {place} has codes {list(a.codes.shape)}, then {list(b.codes.shape)}"
        else:
            differ = a.codes != b.codes
            changed += differ.sum(0)
            if not differ.any():
                continue
            frame, q = (int(x) for x in np.argwhere(differ)[0])
            then = f"{a.codes[frame, q]} became {b.codes[frame, q]}"
            note = f"input {place}, frame {frame}, codebook {q}: {then}"
        found.notes.setdefault(name, note)
    if len(first) != len(other):
        found.notes[name] = f"{len(other)} results came back for {len(first)} inputs"
        changed = total.copy()
    found.metrics[name] = wilson(int(changed.sum()), int(total.sum()))
    for q in range(books if books > 1 else 0):
        found.metrics[f"{name}.cb{q}"] = wilson(int(changed[q]), int(total[q]))
    if facts.side:
        found.metrics[f"{facts.kind}.side.{way}"] = wilson(sides, len(first))
    return found


def in_places(
    uti: UTI, facts: CodecFacts, media: Sequence[Any], coded: Sequence[Coded]
) -> tuple[Measured, list[TokenSpan]]:
    """Ids as the interface gives them: in the range of their codebook, in order, start plus code,
    as many as the facts say, and back to the same codes. `media` are segments."""
    kind, found = facts.kind, Measured()
    named = [uti.space.named(name) for name, _ in facts.ranges()]
    inside, equal, ids, counts, back = 0, 0, 0, [], []
    try:
        spans = uti.encode_batch(media)
    except FAULTS as error:
        return Measured(notes={f"{kind}.ids.inside": f"the interface failed: {error}"}), []
    for one, span, made in zip(media, spans, coded, strict=True):
        wanted = [int(c) + named[q].start for row in made.codes for q, c in enumerate(row)]
        got = span.ids.tolist()
        ids += max(len(got), len(wanted))
        inside += sum(token in named[i % len(named)] for i, token in enumerate(got))
        equal += sum(a == b for a, b in zip(got, wanted, strict=False))
        counts.append(_count_fits(facts, one, made, len(got)))
        try:
            codes = unflatten(span.ids, uti.space.books(kind))
            back.append(np.array_equal(codes, made.codes))
        except ValueError:
            back.append(False)
    found.metrics.update(
        {
            f"{kind}.ids.inside": wilson(inside, ids),
            f"{kind}.ids.equal": wilson(equal, ids),
            f"{kind}.ids.count": wilson(sum(counts), len(counts)),
            f"{kind}.ids.back": wilson(sum(back), len(back)),
        }
    )
    return found, spans


def _count_fits(facts: CodecFacts, segment: Any, made: Coded, ids: int) -> bool:
    """N ids a picture; F * Q of sound, with F within one frame of its seconds at the frame rate."""
    if facts.kind == "image":
        return ids == facts.tokens
    frames = len(made.codes)
    wanted = segment.seconds * facts.frame_rate
    near = abs(frames - wanted) <= 1 + 1e-6 + slack(facts) * wanted
    return ids == frames * facts.codebooks and near


def slack(facts: CodecFacts) -> float:
    """Codecs with side data work in chunks that overlap a little: their frame rate is a mean."""
    return 0.02 if facts.side else 0.0


def sizes(uti: UTI, codec: MediaCodec, coded: Sequence[Coded]) -> Measured:
    """What the space says against what the codec gives: codes stay below the size of their range,
    the largest code of each range decodes, and one more is refused."""
    facts = codec.facts
    kind = facts.kind
    have = np.array([uti.space.named(name).size for name, _ in facts.ranges()])
    fits = [one.codes.shape[1] == len(have) and bool((one.codes < have).all()) for one in coded]
    found = Measured({f"{kind}.sizes.codes": wilson(sum(fits), len(fits))})
    if not facts.decodes or not coded:
        return found
    top = np.broadcast_to(have - 1, coded[0].codes.shape)
    beyond = []
    for q in range(len(have)):
        over = top.copy()
        over[0, q] += 1
        beyond.append(not _decodes(codec, Coded(over, coded[0].side)))
    found.metrics.update(
        {
            f"{kind}.sizes.top": wilson(int(_decodes(codec, Coded(top.copy(), coded[0].side))), 1),
            f"{kind}.sizes.beyond": wilson(sum(beyond), len(beyond)),
        }
    )
    return found


def _decodes(codec: MediaCodec, coded: Coded) -> bool:
    try:
        codec.decode(coded)
    except FAULTS:
        return False
    return True


def margins(codec: MediaCodec, media: Sequence[np.ndarray]) -> Measured:
    """How much nearer the chosen code was than the next one, where a codec can say so.

    Its optional `margins(media)` gives float [F, Q]: distance to the second nearest minus distance
    to the nearest. Where it is near zero, the last bit of a product can flip the code.
    """
    measure = getattr(codec, "margins", None)
    if measure is None or not len(media):
        return Measured()
    kind, gaps = codec.facts.kind, np.concatenate([measure(one) for one in media])
    found: dict[str, Metric] = {}
    for q in range(gaps.shape[1]):
        for share, value in zip(PERCENTILES, np.percentile(gaps[:, q], PERCENTILES), strict=True):
            found[f"{kind}.margin.cb{q}.p{share}"] = exact(float(value), n=len(gaps))
    return Measured(found)


def texts(uti: UTI, given: Sequence[str], elsewhere: Sequence[Sequence[int]] | None) -> Measured:
    """Text comes back to the letter (in NFC where the tokenizer composes accents), its ids are
    TEXT's alone, and the same in another process.

    Special symbols spelled as plain text are plain text.
    """
    inside, back, same = 0, 0, 0
    found, ids, table = Measured(), 0, uti.space.named("TEXT")
    spans = [uti.encode(text).ids.tolist() for text in given]
    for text, span in zip(given, spans, strict=True):
        ids += len(span)
        inside += sum(token in table for token in span)
        try:
            said = uti.decode(TokenSpan("text", np.asarray(span, dtype=np.int64)))
            whole = said == uti.text_codec.composed(text)
        except FAULTS:
            whole = False
        back += whole
        if not whole:
            found.notes.setdefault("text.back", f"{text[:60]!r} does not come back")
    found.metrics.update(
        {
            "text.back": wilson(back, len(spans)),
            "text.inside": wilson(inside, ids),
        }
    )
    if elsewhere is not None:
        same = sum(list(a) == list(b) for a, b in zip(spans, elsewhere, strict=False))
        found.metrics["text.process"] = wilson(same, max(len(spans), len(elsewhere)))
    return found


def same_codec(uti: UTI, elsewhere: Mapping[Any, dict[str, Any]]) -> Measured:
    """Whether another process, which read the files, found the codecs that the space names."""
    found = Measured()
    for facts in uti.space.codecs:
        there = elsewhere.get(facts.kind)
        if there is None:
            continue
        mine = facts.meaning()
        odd = [name for name in mine if there.get(name) != mine[name]]
        found.metrics[f"{facts.kind}.facts"] = wilson(int(not odd), 1)
        if odd:
            was, now = (str(side.get(odd[0]))[:12] for side in (mine, there))
            found.notes[f"{facts.kind}.facts"] = f"{odd[0]} is {now}, the space says {was}"
    return found
