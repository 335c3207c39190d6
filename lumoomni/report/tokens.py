"""The page of a token audit: originals beside what was decoded, and every number with its demand.

Knows: the files that the audit left and its verdict. Does not know: how anything was measured.
Costs: half a second for each pair of sounds, which is drawn.

One file that a browser shows, with everything inside.
"""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from lumoomni.audits.token_report import Run
from lumoomni.gates import Report, Verdict
from lumoomni.report.html import STYLE
from lumoomni.report.plots import spectrogram
from lumoomni.runtime import atomic_write_text

PAGE = "index.html"


def write_token_page(
    folder: Path,
    about: Run,
    report: Report,
    verdict: Verdict,
    sounds: Sequence[tuple[str, str]],
    names: Sequence[str],
) -> Path:
    """Write `index.html` into an audit's folder and return its path.

    `sounds` are (original, decoded) file names there, `names` what is said in them.
    """
    body = (
        _header(about, verdict),
        _table(report, verdict),
        _pictures(folder),
        _sounds(folder, sounds, names),
        _others(report, verdict),
    )
    page = (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Token audit</title><style>{STYLE}</style><body>{''.join(body)}</body></html>"
    )
    atomic_write_text(folder / PAGE, page)
    return folder / PAGE


def _header(about: Run, verdict: Verdict) -> str:
    state = ("good", "passed") if verdict.passed else ("bad", "FAILED")
    held = sum(result.passed for result in verdict.results)
    failed = "".join(f"<li>{html.escape(one)}</li>" for one in verdict.failures())
    return (
        f"<h1>Token audit</h1><p><span class='{state[0]}'>{state[1]}</span>: {held} of "
        f"{len(verdict.results)} checks hold.</p><ul class='bad'>{failed}</ul>"
        f"<p class='soft'>token space <code>{about.abi[:16]}</code>, run "
        f"<code>{html.escape(about.run[:16])}</code></p>"
    )


def _table(report: Report, verdict: Verdict) -> str:
    rows = []
    for result in verdict.results:
        name = result.check.metric
        metric = report.metrics.get(name)
        state = ("good", "passed") if result.passed else ("bad", "FAILED")
        note = report.notes.get(name, "")
        limit = "" if result.limit is None else f"{result.check.op} {result.limit:.4g}"
        why = html.escape(result.check.why + (f" ({note})" if note else ""))
        rows.append(
            f"<tr><td>{html.escape(name)}</td>"
            f"<td class='num'>{html.escape(str(metric) if metric else 'not measured')}</td>"
            f"<td class='num'>{html.escape(limit)}</td>"
            f"<td class='{state[0]}'>{state[1]}</td><td class='soft'>{why}</td></tr>"
        )
    return (
        "<h2>Checks</h2><table><tr><th>measure</th><th>value [95 % CI] (n)</th><th>needed</th>"
        f"<th></th><th>why</th></tr>{''.join(rows)}</table>"
    )


def _others(report: Report, verdict: Verdict) -> str:
    judged = {result.check.metric for result in verdict.results}
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td class='num'>{html.escape(str(metric))}</td></tr>"
        for name, metric in report.metrics.items()
        if name not in judged
    )
    notes = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(note)}</td></tr>"
        for name, note in report.notes.items()
    )
    return f"<h2>Other measures</h2><table>{rows}</table><h2>Notes</h2><table>{notes}</table>"


def _pictures(folder: Path) -> str:
    path = folder / "recon.png"
    if not path.is_file():
        return ""
    shown = f"<img class='plot' alt='' src='{_data(path.read_bytes(), 'image/png')}'>"
    return f"<h2>Pictures</h2><p>Originals above, decoded below.</p>{shown}"


def _sounds(folder: Path, sounds: Sequence[tuple[str, str]], names: Sequence[str]) -> str:
    rows = []
    for place, pair in enumerate(sounds):
        name = names[place] if place < len(names) else ""
        cells = "".join(f"<td>{_player(folder / file)}</td>" for file in pair)
        rows.append(f"<tr><td>{html.escape(name)}</td>{cells}</tr>")
    if not rows:
        return ""
    head = "<tr><th></th><th>original</th><th>decoded</th></tr>"
    return f"<h2>Sounds</h2><table>{head}{''.join(rows)}</table>"


def _player(path: Path) -> str:
    drawn = _data(spectrogram(path), "image/png")
    sound = _data(path.read_bytes(), "audio/wav")
    return f"<img class='plot' alt='' src='{drawn}'><audio controls src='{sound}'></audio>"


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
