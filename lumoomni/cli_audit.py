"""The verb `lumo tokens audit`: is a token space the same every time, in its places, decodable?

Knows: options, where results are written and how they are shown.
Costs: torch is imported when the verb runs; an audit takes tens of seconds.
"""

import shutil
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from lumoomni.errors import GateFailure, InputError
from lumoomni.exits import print_json, verb

EPILOG = "lumo tokens audit runs/space --out runs/audit"


def audit(
    space: Annotated[Path, typer.Argument(help="A folder that `lumo tokens build` made.")],
    image: Annotated[
        list[Path] | None, typer.Option(help="A picture to use instead of the micro-world's.")
    ] = None,
    audio: Annotated[
        list[Path] | None, typer.Option(help="A sound to use instead of the micro-world's.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Another run's report.json, not to fall behind of.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for the report, a page, pictures and sounds.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a token space with its codecs; exit code 1 when a check does not hold.

    Codes must be the same again, in company, with other threads and in another process; ids must
    lie in their ranges; decoding must have the right size, rate and length, and be no worse than
    the baseline.
    """
    with verb():
        from lumoomni.audits.token_inputs import held_out
        from lumoomni.audits.token_report import compare, read_baseline, run_of
        from lumoomni.audits.tokens import TokenAuditConfig, audit_folder, checks
        from lumoomni.gates import Report, judge
        from lumoomni.uti.interface import UTI

        if out is not None and (out.is_file() or out.resolve() == space.resolve()):
            raise InputError(f"{out} cannot hold the results; give --out another folder")
        before = None if baseline is None else read_baseline(baseline)
        # One that failed when it was built is asked why.
        uti, config = UTI.load(space, unproven=True), TokenAuditConfig()
        inputs = held_out(
            uti.space,
            pictures=config.pictures,
            sentences=config.sentences,
            picture_files=image or (),
            sound_files=audio or (),
        )
        found = audit_folder(uti, space, inputs)
        about, wanted = run_of(uuid.uuid4().hex, uti, inputs), checks(uti.space, config)
        report = found.report
        if before is not None:
            moved, more = compare(about, report, before)
            report = Report(
                metrics={**report.metrics, **moved.metrics}, notes={**report.notes, **moved.notes}
            )
            wanted += more
        verdict = judge(report, wanted)
        if out is not None:
            _write(out, space, baseline, (about, found, report, wanted, verdict), inputs.names)
        _show(report, verdict, about, out, as_json)
        if not verdict.passed:
            raise GateFailure("; ".join(_reasons(report, verdict)))


def _write(
    out: Path,
    space: Path,
    baseline: Path | None,
    results: tuple[Any, ...],
    names: dict[Any, tuple[str, ...]],
) -> None:
    """Everything about the audit, each file atomically; the report comes after what it is about."""
    from lumoomni.audits.token_report import BASELINE, write_examples, write_report
    from lumoomni.report.tokens import write_token_page
    from lumoomni.runtime import atomic_write_bytes
    from lumoomni.uti.space_file import FILE, SIDECAR

    about, found, report, wanted, verdict = results
    copies = {FILE: space / FILE, SIDECAR: space / SIDECAR}
    copies |= {BASELINE: baseline} if baseline is not None else {}
    for name, source in copies.items():
        atomic_write_bytes(out / name, source.read_bytes())
    sounds = write_examples(out, found)
    write_report(out, about, found, report, wanted, verdict)
    write_token_page(out, about, report, verdict, sounds, names.get("audio", ()))


def _show(report: Any, verdict: Any, about: Any, out: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(
            {**vars(about), "passed": verdict.passed, **report.to_dict(), **verdict.to_dict()}
        )
        return
    width = min(40, shutil.get_terminal_size().columns // 2)
    for result in verdict.results:
        metric = report.metrics.get(result.check.metric)
        state = "ok" if result.passed else "FAILED"
        print(f"{state:<7}{result.check.metric:<{width}} {metric or 'not measured'}")
    held = sum(result.passed for result in verdict.results)
    print(f"{held} of {len(verdict.results)} checks hold" + (f"; see {out}" if out else ""))


def _reasons(report: Any, verdict: Any) -> list[str]:
    """One sentence for each check that does not hold, with what was noted on the way."""
    reasons = []
    for result in verdict.results:
        if not result.passed:
            note = report.notes.get(result.check.metric, "")
            reasons.append(result.explain() + (f" [{note}]" if note else ""))
    return reasons or list(verdict.failures())
