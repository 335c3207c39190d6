"""Looking at a build directory: the state of each stage, and everything that is wrong with it.

Does not know: how stages are run. Costs: `verify_all` reads every file once.
"""

import json
from pathlib import Path
from typing import Any

from lumoomni.artifacts import MANIFEST, Artifact, Problem, open_artifact, verify
from lumoomni.config import canonical_json
from lumoomni.errors import InputError
from lumoomni.gates import checks_from_dict, judge


def stage_names(folder: Path) -> list[str]:
    """Stages of the recipe that is built in `folder`. Raises InputError when none is."""
    return list(_settings(folder))


def stage_rows(folder: Path) -> list[dict[str, Any]]:
    """For each stage: state, seconds (None until it is built), and each check as a sentence.

    A state is `not built`, `passed` or `FAILED`; `damaged` when its manifest cannot be read;
    `stale` when the recipe or a parent has changed since; `unfinished` when a build stopped in it.
    """
    folder, rows = Path(folder), []
    stale: set[str] = set()
    for name, settings in _settings(folder).items():
        unfinished = (folder / ".work" / name).is_dir()
        row: dict[str, Any] = {"stage": name, "state": "not built", "seconds": None, "checks": []}
        rows.append(row)
        if not (folder / name).exists():
            row["state"] = "unfinished" if unfinished else "not built"
            continue
        try:
            artifact = open_artifact(folder / name)
        except InputError as error:
            row["state"], row["checks"] = "damaged", [str(error)]
            continue
        verdict = judge(artifact.report, checks_from_dict(artifact.manifest["checks"]))
        row["state"] = "passed" if artifact.passed else "FAILED"
        if (
            canonical_json(artifact.config) != canonical_json(settings)
            or stale & artifact.manifest["parents"].keys()
            or _parents(artifact)
        ):
            stale.add(name)
            row["state"] += ", stale" + (", unfinished" if unfinished else "")
        row["seconds"] = artifact.manifest["seconds"]
        row["checks"] = [result.explain() for result in verdict.results]
    return rows


def verify_all(folder: Path) -> tuple[int, list[str]]:
    """How many artifacts were looked at, and every problem as one line.

    A gate that failed is a problem too: what stands there is whole but not proven.
    """
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        places = [folder]
    else:
        places = [folder / name for name in stage_names(folder) if (folder / name).exists()]
        if not places:
            raise InputError(f"{folder} holds no finished stage yet; run `lumo build` first")
    problems: list[Problem] = []
    for place in places:
        try:
            artifact = open_artifact(place)
        except InputError as error:
            problems.append(Problem(place, str(error)))
            continue
        problems += verify(artifact)
        problems += _parents(artifact)
        if not artifact.passed:
            said = judge(artifact.report, checks_from_dict(artifact.manifest["checks"])).failures()
            problems += [Problem(place, f"did not pass its gate: {sentence}") for sentence in said]
    return len(places), [f"{problem.where}: {problem.what}" for problem in problems]


def _settings(folder: Path) -> dict[str, Any]:
    """The saved settings of each stage, in the recipe's order."""
    recipe = Path(folder) / "recipe.json"
    if not recipe.is_file():
        raise InputError(f"{folder} is no build directory: it has no recipe.json")
    try:
        return dict(json.loads(recipe.read_text())["stages"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{recipe} is damaged: {error!r}") from error


def _parents(artifact: Artifact) -> list[Problem]:
    """Parents beside the artifact that are gone or are no longer what it was made from."""
    out = []
    for name, wanted in artifact.manifest["parents"].items():
        place = artifact.path.parent / name
        try:
            found = open_artifact(place).hash
        except InputError:
            out.append(Problem(place, f"cannot be read, but {artifact.kind} was made from it"))
            continue
        if found != wanted:
            out.append(
                Problem(
                    artifact.path,
                    f"was made from {name} {wanted[:12]}..., which is now {found[:12]}...",
                )
            )
    return out
