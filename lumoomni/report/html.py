"""The HTML report of a build: one file that a browser shows, with everything inside.

Knows: manifests, logs and example files of finished stages, and the demonstration if it was run.
Does not know: how anything was made. Costs: a few seconds, most of them for drawing curves.
"""

import base64
import html
import json
from pathlib import Path
from typing import Any

from lumoomni.artifacts import MANIFEST, Artifact, open_artifact
from lumoomni.gates import checks_from_dict, judge
from lumoomni.inspection import stage_names
from lumoomni.report.plots import curves, spectrogram
from lumoomni.runtime import atomic_write_text, read_lines

REPORT = "report.html"
SHOW = "show"
MOST_EXAMPLES = 18

STYLE = """
:root { --line: #d8dce3; --ink: #1c2330; --soft: #5b6575; --good: #14733c; --bad: #b3261e; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; padding: 2rem 1rem;
  max-width: 68rem; background: #fff; }
h1 { margin: 0 0 .3rem; } h2 { margin: 2.4rem 0 .8rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.4rem 0 .4rem; } p.soft, .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top; } td.num { font-variant-numeric: tabular-nums; white-space: nowrap; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; }
.card img.picture { width: 100%; image-rendering: pixelated; border-radius: .3rem; }
img.plot { max-width: 100%; } audio { width: 100%; margin-top: .4rem; }
code { background: #f2f4f7; padding: .1rem .3rem; border-radius: .2rem; }
.chain { display: flex; flex-wrap: wrap; gap: .6rem; } .chain .card { font-size: .85rem; }
"""


def write_report(folder: Path) -> Path:
    """Write `report.html` into a build directory and return its path.

    Raises InputError when it is no build directory or an artifact cannot be read.
    """
    folder = Path(folder)
    names = stage_names(folder)
    built = [open_artifact(folder / n) for n in names if (folder / n / MANIFEST).is_file()]
    body = [
        _header(folder, names, built),
        _show(folder / SHOW),
        _gates(built),
        _curves(built),
        *(_examples(artifact) for artifact in built),
        *(_golden(artifact) for artifact in built),
        _lineage(built),
    ]
    page = (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>LumoOmni: {html.escape(folder.name)}</title><style>{STYLE}</style>"
        f"<body>{''.join(body)}</body></html>"
    )
    path = folder / REPORT
    atomic_write_text(path, page)
    return path


def _header(folder: Path, names: list[str], built: list[Artifact]) -> str:
    passed = sum(artifact.passed for artifact in built)
    seconds = sum(artifact.manifest["seconds"] for artifact in built)
    state = "good" if built and passed == len(built) else "bad"
    left = len(names) - len(built)
    rest = f", {left} {'is' if left == 1 else 'are'} not built" if left else ""
    machine = built[-1].manifest["environment"] if built else {}
    facts = ", ".join(f"{key} {value}" for key, value in machine.items())
    return (
        f"<h1>{html.escape(folder.name)}</h1>"
        f"<p><span class='{state}'>{passed} of {len(built)} stages passed their gates</span>"
        f"{rest}, {seconds / 60:.1f} minutes of building.</p>"
        f"<p class='soft'>{html.escape(facts)}</p>"
    )


def _show(folder: Path) -> str:
    """The demonstration, if it was run."""
    listing = folder / "show.json"
    if not listing.is_file():
        return ""
    cards = [_show_card(folder, item) for item in json.loads(listing.read_text())]
    return f"<h2>What it does</h2><div class='grid'>{''.join(cards)}</div>"


def _show_card(folder: Path, item: dict[str, Any]) -> str:
    parts = [f"<h3>{html.escape(item['title'])}</h3>"]
    if item.get("picture"):
        parts.append(_picture(folder / item["picture"]))
    for line in item.get("lines", []):
        parts.append(f"<p>{html.escape(line)}</p>")
    for sound in item.get("sounds", []):
        parts.append(f"<p class='soft'>{html.escape(sound['title'])}</p>")
        parts.append(_sound(folder / sound["file"]))
    return f"<div class='card'>{''.join(parts)}</div>"


def _gates(built: list[Artifact]) -> str:
    rows = []
    for artifact in built:
        verdict = judge(artifact.report, checks_from_dict(artifact.manifest["checks"]))
        for result in verdict.results:
            metric = artifact.report.metrics.get(result.check.metric)
            state = ("good", "passed") if result.passed else ("bad", "FAILED")
            limit = "" if result.limit is None else f"{result.check.op} {result.limit:.4g}"
            rows.append(
                f"<tr><td>{artifact.kind}</td><td>{html.escape(result.check.metric)}</td>"
                f"<td class='num'>{html.escape(str(metric) if metric else 'not measured')}</td>"
                f"<td class='num'>{html.escape(limit)}</td>"
                f"<td class='{state[0]}'>{state[1]}</td>"
                f"<td class='soft'>{html.escape(result.check.why)}</td></tr>"
            )
    others = []
    for artifact in built:
        judged = {check["metric"] for check in artifact.manifest["checks"]}
        for name, metric in artifact.report.metrics.items():
            if name not in judged:
                others.append(
                    f"<tr><td>{artifact.kind}</td><td>{html.escape(name)}</td>"
                    f"<td class='num'>{html.escape(str(metric))}</td></tr>"
                )
    return (
        "<h2>Gates</h2><table><tr><th>stage</th><th>measure</th><th>value [95 % CI] (n)</th>"
        f"<th>needed</th><th></th><th>why</th></tr>{''.join(rows)}</table>"
        "<details><summary>Other measures</summary><table><tr><th>stage</th><th>measure</th>"
        f"<th>value [95 % CI] (n)</th></tr>{''.join(others)}</table></details>"
    )


def _curves(built: list[Artifact]) -> str:
    drawn = []
    for artifact in built:
        log = artifact.path / "log.jsonl"
        if log.is_file():
            picture = curves(artifact.kind, read_lines(log))
            if picture:
                drawn.append(f"<div class='card'>{_inline(picture, 'image/png', 'plot')}</div>")
    return f"<h2>Learning curves</h2><div class='grid'>{''.join(drawn)}</div>" if drawn else ""


def _examples(artifact: Artifact) -> str:
    parts = []
    listing = artifact.path / "examples.jsonl"
    if listing.is_file():
        rows = read_lines(listing)
        with_pictures = [row for row in rows if row.get("picture")]
        chosen = (with_pictures or rows)[:: max(1, len(with_pictures or rows) // MOST_EXAMPLES)]
        parts += [_example(artifact.path, row) for row in chosen[:MOST_EXAMPLES]]
    for sound in sorted(artifact.path.glob("*.wav")):
        note = artifact.report.notes.get(sound.stem, sound.stem)
        picture = _inline(spectrogram(sound), "image/png", "plot")
        parts.append(f"<div class='card'><p>{html.escape(note)}</p>{picture}{_sound(sound)}</div>")
    if not parts:
        return ""
    return f"<h2>{artifact.kind}: examples</h2><div class='grid'>{''.join(parts)}</div>"


def _example(folder: Path, row: dict[str, Any]) -> str:
    if "turns" in row:
        *asked, (_, wanted) = row["turns"]
        question, said = " / ".join(text for _, text in asked), row["answer"]
    else:
        question, wanted, said = row["question"] or "(spoken)", row["wanted"], row["said"]
    state = "good" if row["right"] else "bad"
    picture = _picture(folder / row["picture"]) if row.get("picture") else ""
    expected = "" if row["right"] else f"<p class='soft'>expected: {html.escape(wanted)}</p>"
    return (
        f"<div class='card'>{picture}<p>{html.escape(question)}</p>"
        f"<p class='{state}'>{html.escape(said)}</p>{expected}</div>"
    )


def _golden(artifact: Artifact) -> str:
    """The same pictures, described at several points of training, side by side."""
    listing = artifact.path / "golden.jsonl"
    if not listing.is_file():
        return ""
    rows = read_lines(listing)
    steps = sorted({row["step"] for row in rows})
    said = {(row["item"], row["step"]): row for row in rows}
    head = "".join(f"<th>{step}</th>" for step in steps)
    lines = []
    for item in sorted({row["item"] for row in rows})[:MOST_EXAMPLES]:
        picture = _picture(artifact.path / "golden" / f"{item}.png")
        cells = ""
        for step in steps:
            row = said.get((item, step))
            if row is None:
                cells += "<td></td>"
                continue
            state = "good" if row["said"] == row["wanted"] else ""
            text = f"{html.escape(row['said'])}<br><code>{row['sha1']}</code>"
            cells += f"<td class='{state}'>{text}</td>"
        lines.append(f"<tr><td>{picture}</td>{cells}</tr>")
    table = f"<table><tr><th>update</th>{head}</tr>{''.join(lines)}</table>"
    return f"<h2>{artifact.kind}: the same pictures over training</h2>{table}"


def _lineage(built: list[Artifact]) -> str:
    cards = []
    for artifact in built:
        parents = ", ".join(artifact.manifest["parents"]) or "nothing"
        files = sum(facts["bytes"] for facts in artifact.manifest["files"].values())
        cards.append(
            f"<div class='card'><b>{artifact.kind}</b><br><code>{artifact.hash[:12]}</code><br>"
            f"<span class='soft'>from {html.escape(parents)}<br>{files / 1e6:.1f} MB, "
            f"{artifact.manifest['seconds']:.0f} s, {artifact.manifest['created']}</span></div>"
        )
    return f"<h2>Lineage</h2><div class='chain'>{''.join(cards)}</div>"


def _picture(path: Path) -> str:
    return _inline(path.read_bytes(), "image/png", "picture") if path.is_file() else ""


def _sound(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<audio controls src='data:audio/wav;base64,{data}'></audio>"


def _inline(data: bytes, kind: str, name: str) -> str:
    encoded = base64.b64encode(data).decode()
    return f"<img class='{name}' alt='' src='data:{kind};base64,{encoded}'>"
