"""What decoded codes are held to: the right size, rate and length, and how near to the original.

Knows: the codec's facts and the measures of signal.py. Does not know: ids or thresholds.
Costs: each input is decoded once, some twice or three times.

Originals are brought to what the codec works at, pictures to its size and sound to its rate and
channels, before they are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lumoomni.audits.signal import WINDOW, log_mel_l1, psnr, snr_db, ssim
from lumoomni.audits.token_codes import FAULTS, Measured, slack
from lumoomni.codecs.facts import CodecFacts, Coded, MediaCodec
from lumoomni.gates import bootstrap_mean, wilson
from lumoomni.media.audio import Audio
from lumoomni.media.image import resize
from lumoomni.uti.interface import UTI, TokenSpan

TWICE = 4
"""Inputs that are decoded again through the interface."""
SWAPPED = 8
"""Sounds that are also decoded with their codebooks in reverse."""


@dataclass(frozen=True)
class Pair:
    """An original as the codec should give it back, and what it gave."""

    original: Any
    decoded: Any


def decode_each(
    codec: MediaCodec, media: Sequence[np.ndarray], coded: Sequence[Coded]
) -> tuple[list[Pair], Measured]:
    """Every input decoded, with its shape checked; pairs are those that can be compared."""
    facts, kind = codec.facts, codec.facts.kind
    pairs, found = [], Measured()
    right: dict[str, int] = dict.fromkeys(_wanted(facts), 0)
    for place, (one, made) in enumerate(zip(media, coded, strict=True)):
        original = _original(codec, one)
        try:
            decoded = codec.decode(made)
        except FAULTS as error:
            found.notes.setdefault(f"{kind}.decode.made", f"input {place}: {error}")
            continue
        shape = _picture(original, decoded) if kind == "image" else _sound(facts, original, decoded)
        for name, (holds, note) in shape.items():
            right[name] += holds
            if not holds:
                found.notes.setdefault(f"{kind}.decode.{name}", f"input {place}: {note}")
        if all(holds for holds, _ in shape.values()):
            pairs.append(Pair(original, decoded))
    for name, count in right.items():
        found.metrics[f"{kind}.decode.{name}"] = wilson(count, len(media))
    return pairs, found


def _wanted(facts: CodecFacts) -> tuple[str, ...]:
    shape = ("size",) if facts.kind == "image" else ("rate", "channels", "length")
    return ("made", *shape, "finite")


def _original(codec: MediaCodec, media: np.ndarray) -> Any:
    """The picture at the codec's size, or the sound [S] or [S, 2] at its rate.

    A codec that does not just stretch pictures has a `seen(picture)`: what is left of it.
    """
    facts, seen = codec.facts, getattr(codec, "seen", None)
    if facts.kind == "image":
        return seen(media) if seen else resize(media, facts.image_size)
    return Audio(media.T if media.ndim == 2 else media, facts.sample_rate)


def _picture(original: np.ndarray, decoded: Any) -> dict[str, tuple[bool, str]]:
    made = isinstance(decoded, np.ndarray) and decoded.dtype == np.uint8
    size = made and decoded.shape == original.shape
    shape = list(decoded.shape) if made else type(decoded).__name__
    return {
        "made": (made, f"decoding gave {shape}, not a picture uint8 [H, W, 3]"),
        "size": (size, f"decoded to {shape}, the codec's facts say {list(original.shape)}"),
        "finite": (made, "whole numbers are always finite"),
    }


def _sound(facts: CodecFacts, original: Audio, decoded: Any) -> dict[str, tuple[bool, str]]:
    if not isinstance(decoded, Audio):
        return {"made": (False, f"decoding gave {type(decoded).__name__}, not sound")}
    channels = 1 if decoded.samples.ndim == 1 else decoded.samples.shape[1]
    apart = abs(len(decoded.samples) - len(original.samples))
    frame = facts.sample_rate / facts.frame_rate * (1 + slack(facts))
    finite = bool(np.isfinite(decoded.samples).all())
    rate = decoded.rate == facts.sample_rate
    return {
        "made": (True, ""),
        "rate": (rate, f"decoded at {decoded.rate} Hz, the facts say {facts.sample_rate}"),
        "channels": (
            channels == facts.channels,
            f"decoded {channels} channels, the facts say {facts.channels}",
        ),
        "length": (
            apart <= frame,
            f"{apart} samples from the original's length, a frame is {frame:g}",
        ),
        "finite": (finite, "decoded sound holds NaN or infinite samples"),
    }


def nearness(facts: CodecFacts, pairs: Sequence[Pair]) -> Measured:
    """PSNR and SSIM of pictures; log-mel L1 and SNR of sound, moved by one frame at most.

    Also the share of what was decoded that is nearer to its original than to that original turned
    around: codes that carry nothing of the input cannot reach it, a flat grey neither.
    """
    if not pairs:
        return Measured()
    kind = facts.kind
    if kind == "image":
        found = {f"{kind}.psnr": bootstrap_mean([psnr(p.original, p.decoded) for p in pairs])}
        if min(pairs[0].original.shape[:2]) >= WINDOW:
            values = [ssim(p.original, p.decoded) for p in pairs]
            found[f"{kind}.ssim"] = bootstrap_mean(values)
        turned = [p.original[::-1, ::-1] for p in pairs]
        own = [
            psnr(p.original, p.decoded) > psnr(back, p.decoded) or np.array_equal(p.original, back)
            for p, back in zip(pairs, turned, strict=True)
        ]
    else:
        frame = int(facts.sample_rate / facts.frame_rate)
        values = [snr_db(p.original, p.decoded, most_shift=frame) for p in pairs]
        apart = [log_mel_l1(p.original, p.decoded) for p in pairs]
        found = {
            f"{kind}.snr_db": bootstrap_mean(values),
            f"{kind}.log_mel_l1": bootstrap_mean(apart),
        }
        own = [
            a < _apart_reversed(p) or np.array_equal(p.original.samples, p.original.samples[::-1])
            for a, p in zip(apart, pairs, strict=True)
        ]
    found[f"{kind}.own"] = wilson(sum(own), len(own))
    return Measured(found)


def _apart_reversed(pair: Pair) -> float:
    backwards = Audio(pair.original.samples[::-1], pair.original.rate)
    return log_mel_l1(backwards, pair.decoded)


def codebook_order(codec: MediaCodec, coded: Sequence[Coded], pairs: Sequence[Pair]) -> Measured:
    """Share of sounds whose codes, with the codebooks in reverse, decode no nearer to the original:
    a codec that gives its codebooks in another order than it reads them shows here."""
    facts = codec.facts
    if facts.codebooks < 2:
        return Measured()
    right, total = 0, 0
    for made, pair in list(zip(coded, pairs, strict=True))[:SWAPPED]:
        turned = made.codes[:, ::-1].copy()
        if np.array_equal(turned, made.codes):
            continue
        total += 1
        try:
            other = log_mel_l1(pair.original, codec.decode(Coded(turned, made.side)))
        except FAULTS:
            continue
        right += log_mel_l1(pair.original, pair.decoded) <= other
    return Measured({f"{facts.kind}.order": wilson(right, total)})


def through_interface(uti: UTI, spans: Sequence[TokenSpan], pairs: Sequence[Pair]) -> Measured:
    """Share of inputs that decode to the same bits again, this time from their ids."""
    if not pairs or not spans:
        return Measured()
    kind, same = spans[0].kind, 0
    for span, pair in list(zip(spans, pairs, strict=True))[:TWICE]:
        try:
            again = uti.decode(span)
        except FAULTS:
            continue
        if isinstance(again, Audio):
            length = len(again.samples)
            same += np.array_equal(again.samples, pair.decoded.samples[:length])
        else:
            same += np.array_equal(again, pair.decoded)
    return Measured({f"{kind}.decode.same": wilson(same, min(TWICE, len(pairs)))})
