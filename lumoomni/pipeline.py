"""The pipeline: a recipe's stages in order, skipping what is unchanged, stopping at a failed gate.

Knows: stages as named functions with configs and parents, scratch folders, locks, events.
Does not know: what a stage trains. Costs: every existing artifact is hashed once per build.

A build directory:  recipe.json, events.jsonl, <stage>/ (artifacts), .cache/ (regenerable data),
.work/<stage>/ (an unfinished stage: checkpoints and its log), build.lock.
"""

import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lumoomni import config as configs
from lumoomni.arithmetic import quick_float32
from lumoomni.artifacts import (
    Artifact,
    ArtifactWriter,
    check_files,
    check_seal,
    judge_again,
    open_artifact,
)
from lumoomni.config import canonical_json, config_hash, nearest, to_dict
from lumoomni.errors import GateFailure, InputError
from lumoomni.gates import Check, Report, checks_from_dict, checks_to_dict, judge
from lumoomni.inputs import fingerprints
from lumoomni.runtime import (
    Progress,
    append_line,
    atomic_write_json,
    atomic_write_text,
    flushing,
    read_lines,
    refuse_missing,
    resolve_device,
)

RECIPE_FILE = "recipe.json"
LOG_FILE = "log.jsonl"
STARTS_FILE = "starts.jsonl"
SPACE_FILE = "token_space.json"
"""What says which ids an artifact speaks of; its `abi` is that of the artifact."""


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """All that a running stage may touch. `out` becomes the artifact, `work` survives a kill."""

    name: str
    config: Any
    parents: dict[str, Artifact]
    out: Path
    work: Path
    cache: Path
    seed: int
    progress: Progress
    stop: threading.Event
    device: str = "cpu"
    """Where training happens: `auto`, `cpu`, `cuda` or `mps`; it is no part of what is built."""

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to the stage's log, which becomes part of the artifact."""
        append_line(self.work / LOG_FILE, {"time": round(time.time(), 2), **entry})


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe: `run` trains or builds and measures, `checks` is its gate.

    `extras` are those of the package that it needs; they are asked for before anything is built.
    """

    name: str
    config: Any
    parents: tuple[str, ...]
    run: Callable[[StageContext], Report]
    checks: Callable[[Any], tuple[Check, ...]]
    extras: tuple[str, ...] = ()


OWN_STEPS = ("loop.", "optim.")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Stages in order; each stage's parents stand before it.

    `aliases` are short names for settings, perhaps of several stages: `llm=DIR`. `copies` names
    where settings of a stage stand again, in a later one that asks what it asked: they follow what
    is said of that stage, but for how long and in what steps it learns.
    """

    name: str
    stages: tuple[Stage, ...]
    seed: int = 0
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    copies: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for stage in self.stages:
            for parent in stage.parents:
                if parent not in seen:
                    raise ValueError(f"stage {stage.name} needs {parent}, which is not before it")
            if stage.name in seen:
                raise ValueError(f"stage {stage.name} appears twice in recipe {self.name}")
            seen.add(stage.name)

    def names(self) -> list[str]:
        """Stage names in order."""
        return [stage.name for stage in self.stages]

    def stage(self, name: str) -> Stage:
        """Raises InputError for an unknown stage."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise InputError(f"recipe {self.name} has no stage {name!r}; {nearest(name, self.names())}")

    def override(self, changes: Iterable[str]) -> "Recipe":
        """Apply `stage.path=value` changes. Raises InputError for an unknown stage or path."""
        stages = {stage.name: stage for stage in self.stages}
        changed: dict[str, list[str]] = {}
        for change in self._spelled_out(changes):
            name, dot, rest = change.partition(".")
            if not dot or "=" not in rest:
                raise InputError(f"{change!r} is no setting; write stage.path=value")
            changed.setdefault(self.stage(name).name, []).append(rest)
        for name, settings in changed.items():
            config = configs.override(stages[name].config, settings)
            stages[name] = replace(stages[name], config=config)
        return replace(self, stages=tuple(stages.values()))

    def _spelled_out(self, changes: Iterable[str]) -> Iterator[str]:
        given = []
        for change in changes:
            name, _, value = change.partition("=")
            paths = self.aliases.get(name, ())
            given += [f"{path}={value}" for path in paths] if paths else [change]
        said = [f"{change.partition('=')[0]}." for change in given]
        for change in given:
            yield change
            path, _, value = change.partition("=")
            stage, _, rest = path.partition(".")
            if not rest or rest.startswith(OWN_STEPS):
                continue
            for copy in filter(self._holds, self.copies.get(stage, ())):
                # What is said of the copy itself counts more.
                if not f"{copy}.{rest}.".startswith(tuple(said)):
                    yield f"{copy}.{rest}={value}"

    def _holds(self, path: str) -> bool:
        """Whether there are settings at `stage.field`."""
        name, _, field_name = path.partition(".")
        held = [getattr(stage.config, field_name, None) for stage in self.stages]
        return any(s.name == name and x is not None for s, x in zip(self.stages, held, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe: every setting of every stage."""
        return {
            "schema": 1,
            "recipe": self.name,
            "seed": self.seed,
            "stages": {stage.name: to_dict(stage.config) for stage in self.stages},
        }

    def with_settings(self, data: dict[str, Any]) -> "Recipe":
        """This recipe with the settings of a saved `to_dict`. Raises InputError when they differ
        in more than values."""
        stages = []
        for name, settings in data["stages"].items():
            stage = self.stage(name)
            config = configs.from_dict(type(stage.config), settings, where=name)
            stages.append(replace(stage, config=config))
        return replace(self, stages=tuple(stages), seed=int(data.get("seed", 0)))


def build(
    recipe: Recipe,
    out: Path,
    *,
    until: str | None = None,
    force: Iterable[str] = (),
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    device: str = "auto",
) -> dict[str, Artifact]:
    """Run the recipe into `out`; what stands and is unchanged is kept.

    Raises GateFailure at the first stage whose numbers fall short, InputError when another build
    works in `out` or a stage's extras are not installed, Interrupted when stopped.
    """
    progress, stop = progress or Progress(), stop or threading.Event()
    if device not in ("auto", "cpu"):
        resolve_device(device)  # a device that is not here is said before anything is begun
    forced = {recipe.stage(name).name for name in force}
    last = recipe.names().index(recipe.stage(until).name) if until else len(recipe.stages) - 1
    refuse_missing({stage.name: stage.extras for stage in recipe.stages[: last + 1]})
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a directory to build into")
    done: dict[str, Artifact] = {}
    # Here, so that threads which torch starts in any stage inherit it.
    with _lock(out), flushing(), quick_float32():
        atomic_write_json(out / RECIPE_FILE, recipe.to_dict())
        for stage in recipe.stages[: last + 1]:
            parents = {name: done[name] for name in stage.parents}
            kept = None if stage.name in forced else find_current(stage, out, parents, recipe.seed)
            if kept is not None:
                _event(out, stage.name, "kept")
                progress.say(f"{stage.name}: unchanged, {_word(kept)}")
            else:
                site = (progress, stop, device)
                kept = _run(stage, out, parents, recipe.seed, site)
            if not kept.passed:
                raise GateFailure(_failure(kept))
            done[stage.name] = kept
    return done


def find_current(
    stage: Stage, out: Path, parents: dict[str, Artifact], seed: int
) -> Artifact | None:
    """The stage's artifact if it is intact and was made from just this config, the files that it
    names, and these parents.

    Under a gate that changed since, it is judged again by what was measured.
    """
    if not (out / stage.name).is_dir():
        return None
    artifact = open_artifact(out / stage.name)
    wanted = {name: parent.hash for name, parent in parents.items()}
    same = (
        artifact.manifest["config_hash"] == config_hash(stage.config)
        and artifact.manifest["parents"] == wanted
        and artifact.manifest["seed"] == seed
    )
    same = same and artifact.manifest.get("inputs", {}) == fingerprints(stage.config)
    if not same or check_files(artifact) or check_seal(artifact):
        return None
    checks = stage.checks(stage.config)
    judged = artifact.manifest["checks"] == checks_to_dict(checks)
    return artifact if judged else judge_again(artifact, checks)


def _run(
    stage: Stage,
    out: Path,
    parents: dict[str, Artifact],
    seed: int,
    site: tuple[Progress, threading.Event, str],
) -> Artifact:
    progress, stop, device = site
    inputs = fingerprints(stage.config)
    work = _scratch(stage, out, parents, seed, inputs)
    _event(out, stage.name, "started")
    progress.say(f"{stage.name}: building")
    began, before = time.monotonic(), _seconds_before(work)
    with ArtifactWriter(out / stage.name) as writer:
        context = StageContext(
            name=stage.name,
            config=stage.config,
            parents=parents,
            out=writer.folder,
            work=work,
            cache=out / ".cache",
            seed=seed,
            progress=progress,
            stop=stop,
            device=device,
        )
        report = stage.run(context)
        checks = stage.checks(stage.config)
        verdict = judge(report, checks)
        if (work / LOG_FILE).is_file():
            shutil.copyfile(work / LOG_FILE, writer.folder / LOG_FILE)
        seconds = before + time.monotonic() - began
        artifact = writer.commit(
            kind=stage.name,
            config=stage.config,
            parents={name: parent.hash for name, parent in parents.items()},
            seed=seed,
            report=report,
            checks=checks,
            verdict=verdict,
            abi=_abi(stage.name, writer.folder, parents),
            seconds=seconds,
            inputs=inputs,
        )
    shutil.rmtree(work)
    _event(out, stage.name, "passed" if verdict.passed else "failed", seconds=round(seconds, 1))
    progress.say(f"{stage.name}: {_word(artifact)} in {seconds:.0f} s")
    return artifact


def _abi(name: str, folder: Path, parents: dict[str, Artifact]) -> str | None:
    """The token space that an artifact holds, or else that of its parents, if there is one.

    Raises InputError for parents of several: ids of one mean other things in the other.
    """
    own = folder / SPACE_FILE
    if own.is_file():
        return str(json.loads(own.read_text())["abi"])
    found = {abi: one.path for one in parents.values() if (abi := one.manifest["abi"]) is not None}
    if len(found) > 1:
        said = " and ".join(f"{path} of {abi[:12]}..." for abi, path in found.items())
        raise InputError(f"{name} is made from two token spaces, {said}; build both on one")
    return next(iter(found), None)


def _scratch(
    stage: Stage, out: Path, parents: dict[str, Artifact], seed: int, inputs: dict[str, str]
) -> Path:
    """The stage's scratch folder; what another config, other parents or other files left there is
    discarded."""
    work = out / ".work" / stage.name
    owner = canonical_json(
        {
            "config": config_hash(stage.config),
            "parents": {name: parent.hash for name, parent in parents.items()},
            "seed": seed,
            **({"inputs": inputs} if inputs else {}),
        }
    )
    marker = work / "owner.json"
    if work.exists() and (not marker.is_file() or marker.read_text() != owner):
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    (out / ".cache").mkdir(exist_ok=True)
    if not marker.is_file():
        atomic_write_text(marker, owner)
    return work


def _seconds_before(work: Path) -> float:
    """How long earlier, stopped runs worked in this folder; notes that one starts now.

    A killed run cannot say when it ended, so each is taken to have ended with its last log line.
    """
    noted, now = work / STARTS_FILE, round(time.time(), 2)
    starts = [line["time"] for line in read_lines(noted)] if noted.is_file() else []
    append_line(noted, {"time": now})
    log = work / LOG_FILE
    times = [line["time"] for line in read_lines(log)] if log.is_file() else []
    total = 0.0
    for start, end in zip(starts, [*starts, now][1:], strict=True):
        total += max([t for t in times if start <= t < end], default=start) - start
    return total


def _word(artifact: Artifact) -> str:
    return "gate passed" if artifact.passed else "GATE FAILED"


def _failure(artifact: Artifact) -> str:
    verdict = judge(artifact.report, checks_from_dict(artifact.manifest["checks"]))
    reasons = "; ".join(verdict.failures())
    return (
        f"{artifact.kind} did not pass its gate: {reasons}. Its artifact is kept in "
        f"{artifact.path} to look at; change a setting, or use --force {artifact.kind} to try again"
    )


def _event(out: Path, stage: str, what: str, **numbers: float) -> None:
    entry = {"time": round(time.time(), 2), "stage": stage, "event": what, **numbers}
    append_line(out / "events.jsonl", entry)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Only one build works in a directory; the lock goes with its process, however it ends."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "build.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise InputError(
                f"another build (process {file.read().strip() or 'unknown'}) is working in {out}; "
                "wait for it or give another --out"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
