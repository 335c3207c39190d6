"""Workers and clusters: the same bytes as one process makes, and no end that is silent."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lumoomni.cli import app
from lumoomni.data import engines
from lumoomni.data.engines import Crew, _heard, _Worker
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.tokenize_run import tokenize
from lumoomni.data.tokenizing import Job
from lumoomni.errors import InputError
from lumoomni.runtime import Interrupted, Progress
from tests.data.shard_world import ROWS, hashes, write_records, write_space

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space, 40 records with three bad ones, and their shards by one process."""
    root = tmp_path_factory.mktemp("engines")
    write_space(root)
    write_records(root / "data")
    for name in ("0", "3", "38"):
        (root / f"data/{name}.wav").write_bytes(b"changed")
    run(root, root / "whole")
    return root


def run(world: Path, out: Path, **options: Any) -> Any:
    options = {"rows_per_shard": ROWS, "max_bad": 0.1, **options}
    return tokenize(world / "data/manifest.jsonl", world / "space", out, **options)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_makes_the_same_bytes(
    world: Path, tmp_path: Path, workers: int
) -> None:
    assert len((world / "whole/errors.jsonl").read_text().splitlines()) == 3
    run(world, tmp_path / "out", workers=workers)
    assert hashes(tmp_path / "out") == hashes(world / "whole")


@pytest.mark.slow
def test_a_dead_worker_is_an_error_that_names_its_shard(world: Path, tmp_path: Path) -> None:
    """Killed like by a machine without memory, while it works."""
    before, found = children(), []

    def kill() -> None:
        while not found and time.monotonic() < limit:
            found.extend(workers_of(children() - before))
            time.sleep(0.02)
        if found:
            os.kill(found[0], signal.SIGKILL)

    limit = time.monotonic() + 120
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InputError, match=r"made \w+/shard-0000\d\.arrow died \(exit code -9\)"):
        run(world, tmp_path / "out", workers=2)
    killer.join()
    assert not workers_of(children() - before)
    run(world, tmp_path / "out")
    assert hashes(tmp_path / "out") == hashes(world / "whole")


def children() -> set[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in listed.split()}


def workers_of(pids: set[int]) -> list[int]:
    """Those that are not the pool's keeper of resources."""
    return [
        pid for pid in sorted(pids)
        if b"spawn_main" in (Path(f"/proc/{pid}/cmdline").read_bytes() if alive(pid) else b"")
    ]  # fmt: skip


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists()


class Pipe:
    """The parent's end of a pipe that says one thing, or ends."""

    def __init__(self, said: Any) -> None:
        self.said = said
        self.sent: list[Any] = []

    def recv(self) -> Any:
        if self.said is None:
            raise EOFError
        return self.said

    def send(self, what: Any) -> None:
        self.sent.append(what)


class Process:
    exitcode = 3

    def join(self) -> None:
        pass


def test_what_workers_say_is_heard() -> None:
    job, ticks = Job("train/shard-00007.arrow", "m", (), "a", {}), []

    def hear(said: Any) -> Any:
        return _heard(_Worker(Process(), Pipe(said), job), ticks.append)  # type: ignore[arg-type]

    assert hear(("done", 16)) is None and ticks == [16]
    made = hear(("made", b"x"))
    assert made.data == b"x" and made.job is job
    with pytest.raises(InputError, match=r"^no such space$"):
        hear(("refused", "no such space"))
    with pytest.raises(RuntimeError, match=r"failed at train/shard-00007\.arrow:\nTrace") as caught:
        hear(("failed", "Trace"))
    assert not isinstance(caught.value, InputError)
    with pytest.raises(InputError, match=r"shard-00007\.arrow died \(exit code 3\)"):
        hear(None)
    pipe = Pipe(None)
    worker = _Worker(Process(), pipe)  # type: ignore[arg-type]
    waiting = deque([job])
    worker.give(waiting)
    worker.give(waiting)
    assert pipe.sent == [job, None] and worker.job is None


@pytest.mark.slow
def test_a_pool_stops_when_asked_and_leaves_no_worker(world: Path, tmp_path: Path) -> None:
    class Impatient(Progress):
        """Ctrl-C as soon as the first sample is done: many are still to come."""

        @contextlib.contextmanager
        def task(self, name: str, *, total: int, unit: str = "step", start: int = 0):
            class Once:
                def update(self, advance: int = 1, **numbers: float) -> None:
                    if not pressed:
                        pressed.append(name)
                        os.kill(os.getpid(), signal.SIGINT)

            yield Once()

    before, pressed = children(), []
    with pytest.raises(Interrupted):
        tokenize(
            world / "data/manifest.jsonl",
            world / "space",
            tmp_path / "out",
            workers=2,
            rows_per_shard=1,
            max_bad=0.1,
            progress=Impatient(silent=True),
        )
    assert pressed
    assert not workers_of(children() - before)
    assert not (tmp_path / "out/shards.json").exists()
    run(world, tmp_path / "out")
    assert hashes(tmp_path / "out") == hashes(world / "whole")


def test_progress_counts_samples(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(every=0.0)
    progress.live = False
    run(world, tmp_path / "out", progress=progress)
    lines = capfd.readouterr().err.splitlines()
    assert any("tokenize 40/40 samples" in line and "shards 5" in line for line in lines)
    assert any("ETA" in line and "/s" in line for line in lines)


def test_the_command_says_what_it_made_and_how_it_failed(world: Path, tmp_path: Path) -> None:
    def call(*more: str) -> Any:
        words = ["tokenize", str(world / "data/manifest.jsonl"), "--space", str(world / "space")]
        words += ["--out", str(tmp_path / "out"), "--workers", "1", "--rows-per-shard", str(ROWS)]
        return CliRunner().invoke(app, [*words, *more])

    failed = call()
    assert failed.exit_code == 1
    assert "3 of 40 records cannot be used" in failed.stderr and "--max-bad" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    done = call("--max-bad", "0.1", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["counts"]["train"]["bad"] == 2 and said["shards"] == 6 and said["kept"] >= 1
    again = call("--max-bad", "0.1")
    assert "6 shards in" in again.stdout and "6 of them were there" in again.stdout
    assert "eval: 3 rows (" in again.stdout and "1 left out" in again.stdout
    wrong = call("--max-bad", "0.1", "--engine", "none")
    assert wrong.exit_code == 2 and "no engine 'none'" in wrong.stderr
    assert hashes(tmp_path / "out") == hashes(world / "whole")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(place)]
    try:
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(world: Path, tmp_path: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    with pytest.raises(InputError, match=r"is full .*run the same command again"):
        run(world, out)
    whole, there = hashes(world / "whole"), hashes(out)
    assert there and all(whole[name] == value for name, value in there.items())
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert run(world, out).kept == len(there)
    assert hashes(out) == whole


def test_ray_is_asked_for_by_name_when_it_is_missing(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install lumoomni\[cluster\]"):
        run(world, tmp_path / "out", engine="ray")


@pytest.mark.slow
def test_a_cluster_of_two_nodes_makes_the_same_bytes(world: Path, tmp_path: Path) -> None:
    """In a process of its own: Ray's threads, and what they warn of, stay out of this one."""
    pytest.importorskip("ray", reason="needs lumoomni[cluster]")
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # 127.0.0.1 alone
    }
    words = [sys.executable, "-m", "tests.data.ray_cluster", str(world), str(tmp_path / "out")]
    root = Path(__file__).parent.parent.parent
    script = subprocess.Popen(
        words, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        shown, errors = script.communicate(timeout=900)
    finally:
        if script.poll() is None:  # nothing of Ray may outlive the test
            os.killpg(script.pid, signal.SIGKILL)
    assert script.returncode == 0, shown + errors
    said = json.loads(shown.strip().splitlines()[-1])
    assert said["nodes"] == 2 and len(said["used"]) == 2 and said["ticks"] == 40
    assert "is to be made in token space 000" in said["refusal"]
    assert hashes(tmp_path / "out") == hashes(world / "whole")
    ShardSet.open(tmp_path / "out")


def test_engines_are_named_in_one_place(world: Path) -> None:
    assert set(engines.ENGINES) == {"processes", "ray"}
    crew = Crew(space=str(world / "space"), stop=threading.Event(), tick=print, workers=3)
    assert list(engines.processes([], crew)) == []
