"""Builds continue, skip, stop and refuse as promised."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lumoomni import runtime
from lumoomni.artifacts import MANIFEST, identity, open_artifact
from lumoomni.config import WITHOUT_EFFECT, canonical_json, config_hash
from lumoomni.errors import GateFailure, InputError
from lumoomni.gates import Check, Report
from lumoomni.inspection import stage_rows, verify_all
from lumoomni.pipeline import Recipe, StageContext, _seconds_before, build
from lumoomni.recipes import resolve
from lumoomni.runtime import (
    Progress,
    append_line,
    atomic_write_json,
    atomic_write_text,
    read_lines,
)
from tests.toy import ToyConfig, recipe, runs
from tests.toy import run as toy_run

QUIET = Progress(silent=True)
ROOT = Path(__file__).parent.parent


def test_nothing_unchanged_is_rebuilt(tmp_path: Path) -> None:
    first = build(recipe(), tmp_path, progress=QUIET)
    again = build(recipe(), tmp_path, progress=QUIET)
    assert runs(tmp_path) == ["one", "two", "three"]
    assert {n: a.hash for n, a in first.items()} == {n: a.hash for n, a in again.items()}


def test_a_change_rebuilds_the_stage_and_what_came_from_it(tmp_path: Path) -> None:
    build(recipe(), tmp_path, progress=QUIET)
    build(recipe(two=ToyConfig(value=5)), tmp_path, progress=QUIET)
    assert runs(tmp_path) == ["one", "two", "three", "two", "three"]
    build(recipe(two=ToyConfig(value=5)), tmp_path, force=["one"], progress=QUIET)
    # Built again with the same result: its children are still current.
    assert runs(tmp_path)[5:] == ["one"]


def test_seconds_count_what_stopped_runs_took(tmp_path: Path) -> None:
    assert _seconds_before(tmp_path) == 0
    starts = "".join(json.dumps({"time": at}) + "\n" for at in (100.0, 200.0, 300.0))
    atomic_write_text(tmp_path / "starts.jsonl", starts)
    times = [110, 150, 203.5]
    lines = "".join(json.dumps({"time": at}) + "\n" for at in times)
    atomic_write_text(tmp_path / "log.jsonl", lines + '{"time": 29')  # the third died early
    assert _seconds_before(tmp_path) == 50 + 3.5
    assert len((tmp_path / "starts.jsonl").read_text().splitlines()) == 4


def test_until_stops_there_and_unknown_names_are_refused(tmp_path: Path) -> None:
    assert list(build(recipe(), tmp_path, until="two", progress=QUIET)) == ["one", "two"]
    with pytest.raises(InputError, match="did you mean two"):
        build(recipe(), tmp_path, until="tow", progress=QUIET)
    with pytest.raises(InputError, match="did you mean steps"):
        recipe().override(["one.stepz=3"])
    assert recipe().override(["one.steps=9"]).stage("one").config.steps == 9


def test_a_failed_gate_stops_and_says_which_number(tmp_path: Path) -> None:
    failing = recipe(two=ToyConfig(least=50))
    for _ in range(2):
        with pytest.raises(GateFailure, match=r"number is 2 \(n=1\), but needed >= 50"):
            build(failing, tmp_path, progress=QUIET)
    assert runs(tmp_path) == ["one", "two"]  # the second build judged what stood there
    assert stage_rows(tmp_path)[1]["state"] == "FAILED"
    assert stage_rows(tmp_path)[2]["state"] == "not built"
    checked, problems = verify_all(tmp_path)
    assert checked == 2 and len(problems) == 1
    assert problems[0].endswith("two: is whole, but did not pass its gate")


def test_a_killed_build_continues_to_the_same_artifact(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from lumoomni.pipeline import build
        from lumoomni.runtime import Progress
        from tests.toy import ToyConfig, recipe
        slow = ToyConfig(steps=40, pause=0.05)
        build(recipe(two=slow), Path(sys.argv[1]), progress=Progress(silent=True))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    place = tmp_path / ".work" / "two" / "count.txt"
    deadline = time.monotonic() + 60
    while not (place.exists() and place.read_text() and int(place.read_text()) > 3):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # While it works, nobody else may.
    with pytest.raises(InputError, match=f"process {process.pid}"):
        build(recipe(), tmp_path, progress=QUIET)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    slow = ToyConfig(steps=40, pause=0.0)
    done = build(recipe(two=ToyConfig(steps=40, pause=0.05)), tmp_path, progress=QUIET)
    lines = (tmp_path / ".cache" / "runs.txt").read_text().splitlines()
    assert lines[1] == "two from 0" and lines[2].startswith("two from ") and lines[2] != lines[1]
    fresh = build(recipe(two=slow), tmp_path.parent / "fresh", progress=QUIET)
    assert done["two"].manifest["report"] == fresh["two"].manifest["report"]
    assert not (tmp_path / ".work" / "two").exists()
    leftovers = [p.name for p in tmp_path.iterdir() if ".tmp-" in p.name]
    assert not leftovers


def test_scratch_of_another_config_is_discarded(tmp_path: Path) -> None:
    work = tmp_path / ".work" / "one"
    work.mkdir(parents=True)
    (work / "count.txt").write_text("2")
    (work / "owner.json").write_text("somebody else's")
    build(recipe(), tmp_path, until="one", progress=QUIET)
    assert (tmp_path / ".cache" / "runs.txt").read_text() == "one from 0\n"


def test_verify_names_every_fault(tmp_path: Path) -> None:
    build(recipe(), tmp_path, progress=QUIET)
    assert verify_all(tmp_path) == (3, [])
    path = tmp_path / "one" / "number.json"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))
    (tmp_path / "two" / "number.json").unlink()
    (tmp_path / "three" / "stranger.txt").write_text("hello")
    _, problems = verify_all(tmp_path)
    text = "\n".join(problems)
    assert "one/number.json: was changed" in text
    assert "two/number.json: is missing" in text
    assert "three/stranger.txt: is not listed" in text
    # A damaged parent is noticed, and it is built again with everything after it.
    build(recipe(), tmp_path, progress=QUIET)
    assert runs(tmp_path)[3:] == ["one", "two", "three"]


def test_a_verdict_that_does_not_follow_is_found(tmp_path: Path) -> None:
    build(recipe(), tmp_path, progress=QUIET)
    manifest = tmp_path / "one" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"threshold": 0.0', '"threshold": 99.0'))
    assert "but its own report failed" in "\n".join(verify_all(tmp_path)[1])


def test_a_foreign_parent_is_found(tmp_path: Path) -> None:
    build(recipe(), tmp_path, progress=QUIET)
    build(recipe(one=ToyConfig(value=3)), tmp_path, until="one", progress=QUIET)
    problems = "\n".join(verify_all(tmp_path)[1])
    assert "was made from one" in problems
    assert stage_rows(tmp_path)[1]["state"] == "passed, stale"


@dataclass(frozen=True, kw_only=True)
class Crewed(ToyConfig):
    workers: int = field(default=1, metadata=WITHOUT_EFFECT)


def test_what_changes_nothing_that_is_made_builds_nothing_again(tmp_path: Path) -> None:
    build(recipe(two=Crewed()), tmp_path, progress=QUIET)
    build(recipe(two=Crewed(workers=3)), tmp_path, progress=QUIET)
    assert runs(tmp_path) == ["one", "two", "three"]
    assert verify_all(tmp_path) == (3, [])
    # What a killed run left goes on with another number of workers.
    left = tmp_path / ".work" / "two" / "half.txt"
    left.parent.mkdir()
    shutil.rmtree(tmp_path / "two")
    owner = {"config": config_hash(Crewed()), "seed": 0}
    owner["parents"] = {"one": open_artifact(tmp_path / "one").hash}
    (left.parent / "owner.json").write_text(canonical_json(owner))
    (left.parent / "count.txt").write_text("2")
    build(recipe(two=Crewed(workers=5)), tmp_path, progress=QUIET)
    assert (tmp_path / ".cache" / "runs.txt").read_text().splitlines()[3] == "two from 2"


def test_an_artifact_names_the_token_space_that_it_holds_or_stands_on(tmp_path: Path) -> None:
    def spaced(abi: str) -> Callable[[StageContext], Report]:
        def made(context: StageContext) -> Report:
            atomic_write_json(context.out / "token_space.json", {"abi": abi})
            return toy_run(context)

        return made

    def with_runs(**runs: Callable[[StageContext], Report]) -> Recipe:
        plain = recipe()
        stages = tuple(replace(one, run=runs.get(one.name, one.run)) for one in plain.stages)
        return replace(plain, stages=stages)

    build(recipe(), tmp_path / "none", progress=QUIET)
    assert open_artifact(tmp_path / "none" / "three").manifest["abi"] is None
    one = build(with_runs(two=spaced("a" * 64)), tmp_path / "a", progress=QUIET)
    found = {name: artifact.manifest["abi"] for name, artifact in one.items()}
    assert found == {"one": None, "two": "a" * 64, "three": "a" * 64}
    assert open_artifact(tmp_path / "none" / "three").hash != one["three"].hash
    both = with_runs(one=spaced("a" * 64), two=spaced("b" * 64))
    with pytest.raises(InputError, match=r"three is made from two .*a{12}\.\.\..*b{12}\.\.\."):
        build(both, tmp_path / "both", progress=QUIET)
    assert open_artifact(tmp_path / "both" / "two").manifest["abi"] == "b" * 64
    assert not (tmp_path / "both" / "three").exists()


def test_events_and_log_are_kept(tmp_path: Path) -> None:
    build(recipe(), tmp_path, progress=QUIET)
    assert (tmp_path / "one" / "log.jsonl").read_text().count("\n") == 3
    assert '"event": "passed"' in (tmp_path / "events.jsonl").read_text()
    artifact = open_artifact(tmp_path / "three")
    assert set(artifact.manifest["parents"]) == {"one", "two"}
    assert identity(artifact.manifest) == artifact.hash


def test_a_file_cannot_be_built_into(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        build(recipe(), tmp_path / "file", progress=QUIET)


def test_missing_extras_are_said_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(runtime.EXTRAS, "data", ("json", "no_such_module"))
    plain = recipe()
    last = replace(plain.stages[-1], extras=("data",))
    wanting = replace(plain, stages=(*plain.stages[:-1], last))
    with pytest.raises(InputError, match=r"three needs no_such_module.*'lumoomni\[data\]'"):
        build(wanting, tmp_path / "a", progress=QUIET)
    assert not (tmp_path / "a").exists()
    assert list(build(wanting, tmp_path / "b", until="two", progress=QUIET)) == ["one", "two"]


@pytest.mark.parametrize("key", ["value", "n", "created"])
def test_a_flipped_number_of_a_report_is_found(tmp_path: Path, key: str) -> None:
    """The evidence itself: no file changed, and the verdict still follows."""
    build(recipe(), tmp_path, progress=QUIET)
    path = tmp_path / "one" / MANIFEST
    manifest = json.loads(path.read_text())
    if key == "created":
        manifest[key] = "2020-01-01T00:00:00+00:00"
    else:
        name = next(iter(manifest["report"]["metrics"]))
        manifest["report"]["metrics"][name][key] = 12345
    path.write_text(json.dumps(manifest))
    (problem,) = verify_all(tmp_path)[1]
    assert str(path) in problem and "was changed: its SHA-256 is" in problem
    build(recipe(), tmp_path, until="one", progress=QUIET)
    assert verify_all(tmp_path)[1] == [] and runs(tmp_path)[3:] == ["one"]


def test_another_gate_judges_what_was_measured(tmp_path: Path) -> None:
    """Only what was not measured, or does not hold, costs more than a look."""
    build(recipe(), tmp_path, progress=QUIET)
    plain = recipe()
    report = open_artifact(tmp_path / "two").report
    name, metric = next(iter(report.metrics.items()))

    def under(*checks: Check) -> Recipe:
        two = replace(plain.stages[1], checks=lambda _: checks)
        return replace(plain, stages=(plain.stages[0], two, plain.stages[2]))

    held = Check(metric=name, op="<=", threshold=metric.value + 1, why="")
    again = build(under(held), tmp_path, progress=QUIET)
    assert runs(tmp_path) == ["one", "two", "three"] and again["two"].passed
    assert verify_all(tmp_path)[1] == [] and stage_rows(tmp_path)[2]["state"] == "passed"
    with pytest.raises(GateFailure, match=name):
        build(under(replace(held, threshold=metric.value - 1)), tmp_path, progress=QUIET)
    assert runs(tmp_path) == ["one", "two", "three"]
    assert not open_artifact(tmp_path / "two").passed
    with pytest.raises(GateFailure):
        build(under(replace(held, metric="unheard.of")), tmp_path, progress=QUIET)
    assert runs(tmp_path)[3:] == ["two"]


@dataclass(frozen=True, kw_only=True)
class Reads(ToyConfig):
    data: str = ""


def test_files_that_changed_build_again(tmp_path: Path) -> None:
    """The settings are the same, what they name is not."""
    listing, folder = tmp_path / "a.json", tmp_path / "media"
    folder.mkdir()
    listing.write_text("one")
    reads = [
        recipe(two=Reads(data=f"json:{listing}?image_root={folder}")),
        recipe(two=Reads(data=f"chat=librispeech:{folder}")),
    ]
    for number, change in enumerate((listing, folder / "b.wav")):
        out = tmp_path / f"build{number}"
        build(reads[number], out, progress=QUIET)
        build(reads[number], out, progress=QUIET)
        assert runs(out) == ["one", "two", "three"]
        change.write_text("two")
        build(reads[number], out, progress=QUIET)
        assert runs(out)[3:4] == ["two"]
        assert verify_all(out)[1] == []


def test_lines_that_a_kill_tore_cost_themselves_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_line(path, {"step": 1})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    append_line(path, {"step": 3, "said": "a\u2028b\x0bé"})
    append_line(path, 4.5)
    assert read_lines(path) == [{"step": 1}, {"step": 3, "said": "a\u2028b\x0bé"}, 4.5]
    assert path.read_text().count("\n") == 4
    with path.open("ab") as file:
        file.write('{"said": "é'.encode()[:-1])  # inside the letter
    append_line(path, {"step": 6})
    assert read_lines(path)[2:] == [4.5, {"step": 6}]


def test_seconds_of_stopped_runs_survive_torn_notes(tmp_path: Path) -> None:
    starts = tmp_path / "starts.jsonl"
    starts.write_text('{"time": 100.0}\n{"time": 200.0}\n{"time": 3')
    lines = ['{"time": 130.0}', '{"time": 140.0}{"time": 150.0}', '{"time": 260.0}', '{"ti']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert _seconds_before(tmp_path) == 30 + 60
    assert [line["time"] for line in read_lines(starts)][:2] == [100.0, 200.0]


def test_records_in_any_folder_are_no_part_of_what_an_artifact_is() -> None:
    manifest = dict.fromkeys(("kind", "parents", "config_hash", "abi", "seed"), "x")
    files = {"a": {"sha256": "1"}, "run/log.jsonl": {"sha256": "2"}, "log.jsonl": {"sha256": "3"}}
    other = {**files, "run/log.jsonl": {"sha256": "4"}}
    one, two = ({**manifest, "files": each} for each in (files, other))
    assert identity(one) == identity(two)
    assert identity({**manifest, "files": {**files, "a": {"sha256": "5"}}}) != identity(one)


def test_copies_of_settings_follow_but_for_their_steps() -> None:
    recipe = resolve("nano")
    given = ["pretrain_text.data=jsonl:a", "pretrain_text.shown=0", "pretrain_text.heard=0"]
    given += ["instruct.mixture.text=jsonl:a", "align_connector.latents=4"]
    found = recipe.override([*given, "pretrain_text.loop.steps=7", "instruct.optim.lr=0.5"])
    unify, sweep = (found.stage(name).config for name in ("unify", "sweep_connector"))
    assert unify.text.data == "jsonl:a" and unify.text.shown == unify.text.heard == 0
    assert (
        unify.omni.mixture.text == "jsonl:a" and unify.aligned.latents == sweep.align.latents == 4
    )
    before = recipe.stage("unify").config
    assert unify.text.loop == before.text.loop and unify.omni.optim == before.omni.optim


def test_what_is_said_of_a_copy_counts_more() -> None:
    said = ["unify.omni.eval_items=40", "instruct.eval_items=60", "pretrain_text.eval_items=50"]
    for change in ([*said, "unify.text=none"], [*reversed(said), "unify.text=none"]):
        unify = resolve("nano").override(change).stage("unify").config
        assert unify.omni.eval_items == 40 and unify.text is None
    assert resolve("muomni").override(["instruct.eval_items=60"])  # has no such copies
