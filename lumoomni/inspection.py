"""Looking at a build directory: the state of each stage, and everything that is wrong with it.

Does not know: how stages are run. Costs: `verify_all` reads every file once.
"""

import json
from pathlib import Path
from typing import Any

from lumoomni.artifacts import MANIFEST, Artifact, Problem, open_artifact, verify
from lumoomni.errors import InputError
from lumoomni.gates import checks_from_dict, judge


def stage_names(folder: Path) -> list[str]:
    """Stages of the recipe that is built in `folder`. Raises InputError when none is."""
    recipe = Path(folder) / "recipe.json"
    if not recipe.is_file():
        raise InputError(f"{folder} is no build directory: it has no recipe.json")
    try:
        return list(json.loads(recipe.read_text())["stages"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{recipe} is damaged: {error!r}") from error


def stage_rows(folder: Path) -> list[dict[str, Any]]:
    """For each stage: state, seconds, and each check as a sentence."""
    rows = []
    for name in stage_names(folder):
        place = Path(folder) / name
        row: dict[str, Any] = {"stage": name, "state": "not built", "seconds": "", "checks": []}
        if (place / MANIFEST).is_file():
            artifact = open_artifact(place)
            verdict = judge(artifact.report, checks_from_dict(artifact.manifest["checks"]))
            row["state"] = "passed" if artifact.passed else "FAILED"
            if _stale(artifact):
                row["state"] += ", stale"
            row["seconds"] = artifact.manifest["seconds"]
            row["checks"] = [result.explain() for result in verdict.results]
        elif (Path(folder) / ".work" / name).is_dir():
            row["state"] = "unfinished"
        rows.append(row)
    return rows


def verify_all(folder: Path) -> tuple[int, list[str]]:
    """How many artifacts were checked, and every problem as one line."""
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        found = [open_artifact(folder)]
    else:
        names = stage_names(folder)
        found = [open_artifact(folder / n) for n in names if (folder / n / MANIFEST).is_file()]
        if not found:
            raise InputError(f"{folder} holds no finished stage yet; run `lumo build` first")
    problems: list[Problem] = []
    for artifact in found:
        problems += verify(artifact)
        problems += _parents(artifact)
        if not artifact.passed:
            problems.append(Problem(artifact.path, "is whole, but did not pass its gate"))
    return len(found), [f"{problem.where}: {problem.what}" for problem in problems]


def _parents(artifact: Artifact) -> list[Problem]:
    out = []
    for name, wanted in artifact.manifest["parents"].items():
        place = artifact.path.parent / name
        if not (place / MANIFEST).is_file():
            out.append(Problem(place, f"is missing, but {artifact.kind} was made from it"))
        elif (found := open_artifact(place).hash) != wanted:
            out.append(
                Problem(
                    artifact.path,
                    f"was made from {name} {wanted[:12]}..., which is now {found[:12]}...",
                )
            )
    return out


def _stale(artifact: Artifact) -> bool:
    return bool(_parents(artifact))
