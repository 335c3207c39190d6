"""Artifacts: a directory of files and a manifest that says what made them and whether they passed.

Knows: hashes, parents, atomic replacement, verification.
Does not know: what the files mean. Costs: each file is read once to be hashed.

The identity of an artifact is a hash over its kind, its files' hashes, its parents' identities and
its config. Dates, machines and paths are recorded beside it and never enter the hash.
"""

import datetime
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumoomni.config import canonical_json, config_hash, meaning
from lumoomni.errors import InputError
from lumoomni.gates import Check, Report, Verdict, checks_from_dict, checks_to_dict, judge
from lumoomni.runtime import atomic_write_json, disk_full, environment, is_full

SCHEMA = 1
MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"
RECORDS = ("log.jsonl",)
SEAL = "sha256"
"""The manifest's own hash: its numbers are the evidence, so they are guarded as the files are."""


@dataclass(frozen=True)
class Artifact:
    """A finished directory. `hash` is its identity; `file` gives a path inside it."""

    path: Path
    manifest: dict[str, Any]

    @property
    def hash(self) -> str:
        return identity(self.manifest)

    @property
    def kind(self) -> str:
        return self.manifest["kind"]

    @property
    def config(self) -> dict[str, Any]:
        return self.manifest["config"]

    @property
    def report(self) -> Report:
        return Report.from_dict(self.manifest["report"])

    @property
    def passed(self) -> bool:
        return bool(self.manifest["verdict"]["passed"])

    def file(self, name: str) -> Path:
        """Raises InputError when the manifest lists no such file or it is gone."""
        path = self.path / name
        if name not in self.manifest["files"]:
            have = ", ".join(sorted(self.manifest["files"]))
            raise InputError(f"{self.path} ({self.kind}) holds no {name}; it holds {have}")
        if not path.is_file():
            raise InputError(f"{path} is missing; run `lumo verify` and build the stage again")
        return path


@dataclass(frozen=True)
class Problem:
    """Something wrong with an artifact: where, and one sentence."""

    where: Path
    what: str


def identity(manifest: dict[str, Any]) -> str:
    """SHA-256 over what the artifact is, not when or where it was made.

    Records of the making (RECORDS, in any folder) carry times, so they are hashed in the manifest
    but left out here: building the same thing twice gives the same identity.
    """
    keys = ("kind", "parents", "config_hash", "abi", "seed")
    what = {key: manifest[key] for key in keys}
    files = manifest["files"].items()
    what["files"] = {n: f["sha256"] for n, f in files if n.rpartition("/")[2] not in RECORDS}
    return hashlib.sha256(canonical_json(what).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 hex of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_artifact(path: Path) -> Artifact:
    """Read a manifest. Raises InputError when it is missing, broken or from a newer schema."""
    path = Path(path)
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        kind = "a file" if path.is_file() else "a folder" if path.is_dir() else "nothing"
        raise InputError(f"{path} is {kind}, not an artifact: it has no {MANIFEST}")
    try:
        manifest = json.loads(manifest_path.read_text())
        schema = int(manifest["schema"])
        if schema > SCHEMA:
            raise InputError(
                f"{path} was written with schema {schema}, this version reads up to {SCHEMA}; "
                "upgrade lumoomni"
            )
        identity(manifest)
        Report.from_dict(manifest["report"])
        checks_from_dict(manifest["checks"])
        _ = bool(manifest["verdict"]["passed"]), float(manifest["seconds"]), manifest["config"]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{manifest_path} is damaged ({error!r}); build the stage again"
        ) from error
    return Artifact(path, manifest)


def verify(artifact: Artifact) -> tuple[Problem, ...]:
    """Hash every file again and judge the stored report again; an empty tuple means all is well."""
    problems = [*check_files(artifact), *check_seal(artifact)]
    checks = checks_from_dict(artifact.manifest["checks"])
    verdict = judge(artifact.report, checks)
    if verdict.passed != artifact.passed:
        said, found = ("passed" if p else "failed" for p in (artifact.passed, verdict.passed))
        problems.append(
            Problem(
                artifact.path / MANIFEST,
                f"the manifest says the gate {said}, but its own report {found}: "
                + "; ".join(verdict.failures()),
            )
        )
    if config_hash(artifact.config) != artifact.manifest["config_hash"]:
        problems.append(Problem(artifact.path / MANIFEST, "the config does not match its hash"))
    return tuple(problems)


def seal(manifest: dict[str, Any]) -> str:
    """SHA-256 of everything else that a manifest says."""
    rest = {key: value for key, value in manifest.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_seal(artifact: Artifact) -> tuple[Problem, ...]:
    """Whether the manifest is what was written."""
    said, found = str(artifact.manifest.get(SEAL, "none")), seal(artifact.manifest)
    if said == found:
        return ()
    what = f"was changed: its SHA-256 is {found[:12]}..., it says {said[:12]}..."
    return (Problem(artifact.path / MANIFEST, what),)


def judge_again(artifact: Artifact, checks: tuple[Check, ...]) -> Artifact | None:
    """The artifact under another gate, by what was measured; None if something was not measured."""
    wanted = {c.metric for c in checks} | {c.times for c in checks if c.times}
    if not wanted <= artifact.report.metrics.keys():
        return None
    verdict = judge(artifact.report, checks).to_dict()
    manifest = {**artifact.manifest, "checks": checks_to_dict(checks), "verdict": verdict}
    manifest[SEAL] = seal(manifest)
    atomic_write_json(artifact.path / MANIFEST, manifest)
    return Artifact(artifact.path, manifest)


def check_files(artifact: Artifact) -> tuple[Problem, ...]:
    """Missing, changed or extra files, each named."""
    problems = []
    for name, facts in artifact.manifest["files"].items():
        path = artifact.path / name
        if not path.is_file():
            problems.append(Problem(path, "is missing"))
        elif (found := hash_file(path)) != facts["sha256"]:
            problems.append(
                Problem(
                    path,
                    f"was changed: its SHA-256 is {found[:12]}..., the manifest says "
                    f"{facts['sha256'][:12]}...",
                )
            )
    known = set(artifact.manifest["files"]) | {MANIFEST}
    for path in sorted(artifact.path.rglob("*")):
        name = path.relative_to(artifact.path).as_posix()
        if path.is_file() and name not in known:
            problems.append(Problem(path, "is not listed in the manifest"))
    return tuple(problems)


class ArtifactWriter:
    """Collects files in a hidden sibling directory and moves the whole into place on commit."""

    def __init__(self, final: Path) -> None:
        self.final = Path(final)
        self.final.parent.mkdir(parents=True, exist_ok=True)
        _sweep(self.final)
        self.folder = self.final.parent / f".{self.final.name}{TEMPORARY}{os.getpid()}"
        self.folder.mkdir()

    def __enter__(self) -> "ArtifactWriter":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if error is not None and is_full(error) and not isinstance(error, InputError):
            raise disk_full(self.final.parent, 0) from error

    def commit(
        self,
        *,
        kind: str,
        config: Any,
        parents: dict[str, str],
        seed: int,
        report: Report,
        checks: tuple[Check, ...],
        verdict: Verdict,
        abi: str | None = None,
        seconds: float = 0.0,
        inputs: dict[str, str] | None = None,
    ) -> Artifact:
        """Write the manifest and replace whatever stood there.

        Raises InputError when the disk is full; what stood there stays whole.
        """
        manifest = {
            "schema": SCHEMA,
            "kind": kind,
            "files": self._files(),
            "parents": dict(sorted(parents.items())),
            "inputs": inputs or {},
            "config": meaning(config),
            "config_hash": config_hash(config),
            "abi": abi,
            "seed": seed,
            "environment": environment(),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "report": report.to_dict(),
            "checks": checks_to_dict(checks),
            "verdict": verdict.to_dict(),
        }
        manifest[SEAL] = seal(manifest)
        try:
            atomic_write_json(self.folder / MANIFEST, manifest)
            _sync(self.folder)
        except OSError as error:
            if is_full(error):
                raise disk_full(self.final.parent, 0) from error
            raise
        _replace(self.folder, self.final)
        return Artifact(self.final, manifest)

    def _files(self) -> dict[str, dict[str, Any]]:
        return {
            path.relative_to(self.folder).as_posix(): {
                "sha256": hash_file(path),
                "bytes": path.stat().st_size,
            }
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


def _replace(new: Path, final: Path) -> None:
    """Move `new` to `final`; an old one is set aside first and removed only afterwards."""
    if final.exists():
        aside = final.parent / f".{final.name}.old-{os.getpid()}"
        os.replace(final, aside)  # noqa: PTH105
        os.replace(new, final)  # noqa: PTH105
        shutil.rmtree(aside)
    else:
        os.replace(new, final)  # noqa: PTH105
    _sync_folder(final.parent)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(final: Path) -> None:
    """Remove what dead writers left, and put back an old artifact that one had set aside."""
    for path in final.parent.glob(f".{final.name}.*"):
        owner = path.name.rpartition("-")[2]
        if owner.isdigit() and _alive(int(owner)) and int(owner) != os.getpid():
            continue
        if path.name.startswith(f".{final.name}.old-") and not final.exists():
            os.replace(path, final)  # noqa: PTH105
        elif path.is_dir():
            shutil.rmtree(path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
