"""The audit of a token space as a file, and the comparison with another run's file.

Knows: what makes two runs comparable, and how much worse decoding may get.
Does not know: how numbers were measured. Costs: one small file.

A report that is compared with itself proves nothing, so each one names its run and a run's own
report is refused as its baseline. Other inputs or another rate are refused too: their numbers are
no measure of a codec.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lumoomni.audits.token_codes import Measured
from lumoomni.audits.token_inputs import Inputs
from lumoomni.audits.tokens import TokenAudit
from lumoomni.codecs.facts import CodecFacts, Coded
from lumoomni.errors import InputError
from lumoomni.gates import Check, Report, Verdict, checks_to_dict, exact
from lumoomni.media.audio import Audio, save_wav
from lumoomni.media.image import resize, save_png
from lumoomni.runtime import atomic_write_json
from lumoomni.uti.interface import UTI

FILE, BASELINE = "report.json", "baseline_report.json"
KIND, SCHEMA = "uti_audit", 1
PASS = "metrics_v2_pass"
MOST_SHOWN, SHOWN_SIDE = 8, 128


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How far a metric may fall behind the baseline: by a difference, or by a ratio."""

    metric: str
    kind: str
    relative: bool
    limit: float
    why: str

    @property
    def name(self) -> str:
        """Of the metric that says how far it fell."""
        return f"metrics_v2.{self.metric}.{'ratio' if self.relative else 'change'}"

    def change(self, mine: float, base: float) -> float:
        """mine - base, or mine / base; the same number as the base's is always 0 or 1."""
        if not self.relative:
            return mine - base
        return 1.0 if mine == base else mine / base if base else float("inf")

    def check(self) -> Check:
        """The demand on it."""
        op = "<=" if self.relative else ">="
        return Check(metric=self.name, op=op, threshold=self.limit, why=self.why)


RULES = (
    Rule(
        metric="audio.snr_db",
        kind="audio",
        relative=False,
        limit=-1.0,
        why="sound may lose 1 dB of SNR against the baseline",
    ),
    Rule(
        metric="audio.log_mel_l1",
        kind="audio",
        relative=True,
        limit=1.05,
        why="log-mel L1 may grow to 1.05 times the baseline's",
    ),
    Rule(
        metric="image.psnr",
        kind="image",
        relative=False,
        limit=-0.5,
        why="pictures may lose 0.5 dB of PSNR against the baseline",
    ),
    Rule(
        metric="image.ssim",
        kind="image",
        relative=False,
        limit=-0.02,
        why="pictures may lose 0.02 of SSIM against the baseline",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a report is about: which run, which space, which inputs, at which size or rate."""

    run: str
    abi: str
    inputs: dict[str, str]
    """SHA-256 of the inputs of each kind."""
    scale: dict[str, int]
    """Samples a second of sound, pixels a side of pictures."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Another run's report."""

    about: Run
    report: Report


def run_of(run: str, uti: UTI, inputs: Inputs) -> Run:
    """`run` names one run: anything that no other run has."""
    facts = uti.space.codecs
    return Run(
        run=run,
        abi=uti.space.abi,
        inputs={codec.kind: inputs.digest(codec.kind) for codec in facts},
        scale={codec.kind: _scale(codec) for codec in facts},
    )


def _scale(codec: CodecFacts) -> int:
    return codec.image_size if codec.kind == "image" else codec.sample_rate


def read_baseline(path: Path) -> Baseline:
    """Raises InputError for what is no report of a token audit."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise InputError(
                f"{path} is no report of a token audit; give a {FILE} of `lumo tokens audit --out`"
            )
        if data["schema"] != SCHEMA:
            raise InputError(f"{path} has schema {data['schema']}, this version reads {SCHEMA}")
        about = Run(
            run=str(data["run"]),
            abi=str(data["abi"]),
            inputs={str(k): str(v) for k, v in data["inputs"].items()},
            scale={str(k): int(v) for k, v in data["scale"].items()},
        )
        return Baseline(about=about, report=Report.from_dict(data["report"]))
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}; give another run's {FILE}") from error
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is a damaged report ({error!r}); give another one") from error


def compare(mine: Run, report: Report, base: Baseline) -> tuple[Measured, tuple[Check, ...]]:
    """How far each metric moved, `metrics_v2_pass`, and the checks on them.

    Raises InputError for a run's own report, other inputs, another rate or size, and a baseline
    that has nothing in common.
    """
    if base.about.run == mine.run:
        raise InputError(
            f"the baseline is this run's own report (run {mine.run[:12]}...), which proves "
            "nothing; give the report of another run"
        )
    rules = [rule for rule in RULES if rule.kind in mine.inputs and rule.kind in base.about.inputs]
    for kind in dict.fromkeys(rule.kind for rule in rules):
        _comparable(kind, mine, base.about)
    found, used, held = Measured(), [], []
    for rule in rules:
        before = base.report.metrics.get(rule.metric)
        if before is None or not np.isfinite(before.value):
            continue
        used.append(rule)
        now = report.metrics.get(rule.metric)
        if now is None:
            held.append(False)
            continue
        change = rule.change(now.value, before.value)
        found.metrics[rule.name] = exact(change, n=min(now.n, before.n))
        held.append(change <= rule.limit if rule.relative else change >= rule.limit)
    if not used:
        raise InputError(
            f"the baseline measured {', '.join(base.about.inputs) or 'nothing'} and this run "
            f"{', '.join(mine.inputs)}: no metric is in both; give a report of a space like this"
        )
    found.metrics[PASS] = exact(float(all(held)), n=len(held))
    if base.about.abi == mine.abi:
        found.notes["baseline"] = "the baseline is another run of this same token space"
    return found, baseline_checks(used)


def baseline_checks(rules: Sequence[Rule]) -> tuple[Check, ...]:
    """The demands of some rules, and that all of them hold."""
    why = "decoding must not be worse than in the run that is the baseline"
    held = Check(metric=PASS, op=">=", threshold=1.0, why=why)
    return (*(rule.check() for rule in rules), held)


def _comparable(kind: str, mine: Run, base: Run) -> None:
    unit = {"audio": "samples a second", "image": "pixels a side"}[kind]
    if mine.scale[kind] != base.scale.get(kind):
        raise InputError(
            f"the baseline measured {kind} at {base.scale.get(kind)} {unit} and this run at "
            f"{mine.scale[kind]}: their numbers cannot be compared; give one of the same codec kind"
        )
    if mine.inputs[kind] != base.inputs[kind]:
        raise InputError(
            f"the baseline was measured on other {kind} inputs ({base.inputs[kind][:12]}... "
            f"instead of {mine.inputs[kind][:12]}...); audit that space with these inputs first"
        )


def write_report(
    out: Path,
    about: Run,
    audit: TokenAudit,
    report: Report,
    checks: Sequence[Check],
    verdict: Verdict,
) -> None:
    """Write `report.json`: what it is about, hashes of codes, numbers, checks and verdict."""
    data = {
        "kind": KIND,
        "schema": SCHEMA,
        **vars(about),
        "codes": {kind: codes_digest(coded) for kind, coded in audit.coded.items()},
        "report": report.to_dict(),
        "checks": checks_to_dict(checks),
        "verdict": verdict.to_dict(),
    }
    atomic_write_json(out / FILE, data)


def codes_digest(coded: Sequence[Coded]) -> str:
    """SHA-256 over all codes as int64, clip after clip, with their shapes."""
    found = hashlib.sha256()
    for one in coded:
        found.update(repr(one.codes.shape).encode())
        found.update(np.ascontiguousarray(one.codes, dtype="<i8").tobytes())
    return found.hexdigest()


def write_examples(
    out: Path, audit: TokenAudit, most_sounds: int = MOST_SHOWN
) -> list[tuple[str, str]]:
    """Write `recon.png` (originals above what was decoded), and `original.wav`, `recon.wav` and
    further pairs of sounds; returns the names of the pairs of sounds."""
    pictures = list(audit.pairs.get("image", ()))[:MOST_SHOWN]
    if pictures:
        rows = [[_shown(p.original) for p in pictures], [_shown(p.decoded) for p in pictures]]
        save_png(out / "recon.png", np.concatenate([np.concatenate(row, 1) for row in rows], 0))
    names = []
    for place, pair in enumerate(list(audit.pairs.get("audio", ()))[:most_sounds]):
        end = f"_{place}" if place else ""
        for name, sound in (("original", pair.original), ("recon", pair.decoded)):
            save_wav(out / f"{name}{end}.wav", Audio(sound.samples, sound.rate))
        names.append((f"original{end}.wav", f"recon{end}.wav"))
    return names


def _shown(picture: np.ndarray) -> Any:
    """With a white edge, so that pictures do not run into each other."""
    small = resize(picture, SHOWN_SIDE)
    return np.pad(small, ((2, 2), (2, 2), (0, 0)), constant_values=255)
