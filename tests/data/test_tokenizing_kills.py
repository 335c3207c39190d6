"""Tokenizing disturbed: kills, Ctrl-C, disks that fail or are full; the same bytes in the end."""

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumoomni.data import ahead, tokenizing
from lumoomni.data.shard_set import ShardSet
from lumoomni.errors import InputError
from lumoomni.runtime import Interrupted
from tests.data.shard_world import hashes, run

pytest.importorskip("pyarrow")


def forked(work: Callable[[], Any]) -> int:
    """The process id of a copy of this one that does some work and ends at once."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(0)


@pytest.mark.slow
def test_after_a_kill_at_any_moment_it_continues_to_the_same_bytes(
    world: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    run(world, tmp_path / "timed")
    whole, wanted, cut = time.monotonic() - began, hashes(world / "whole"), 0
    for moment in np.linspace(0.02, 1.1, 9):
        out = tmp_path / f"killed-{moment:.2f}"
        pid = forked(lambda out=out: run(world, out))
        time.sleep(whole * moment)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if not (out / "shards.json").exists():
            cut += 1
            if out.exists():
                with pytest.raises(InputError, match="tokenizing is unfinished"):
                    ShardSet.open(out)
        run(world, out)
        assert hashes(out) == wanted, moment
    assert cut >= 3


@pytest.mark.parametrize("number", range(8))
def test_a_kill_before_any_rename_leaves_nothing_behind(
    world: Path, tmp_path: Path, number: int
) -> None:
    """The worst moments: a draft is written, and not yet in its place."""
    out, seen = tmp_path / "out", []

    def work() -> None:
        real = os.replace

        def rename(*names: Any) -> None:
            if len(seen) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(names)
            real(*names)

        os.replace = rename
        run(world, out)

    _, status = os.waitpid(forked(work), 0)
    assert os.WIFSIGNALED(status), "there were fewer files than 8"
    drafts = [name for name in hashes(out) if Path(name).name.startswith(".")]
    assert len(drafts) == 1
    with pytest.raises(InputError, match="tokenizing is unfinished"):
        ShardSet.open(out, verify=False)
    assert run(world, out).kept == min(number, 6)
    assert hashes(out) == hashes(world / "whole")


def test_ctrl_c_stops_after_a_group_and_the_next_run_continues(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = tokenizing._finished, []

    def finished(*given: Any) -> Any:
        seen.append(1)
        if len(seen) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*given)

    monkeypatch.setattr(tokenizing, "_finished", finished)
    with pytest.raises(Interrupted):
        run(world, tmp_path / "out")
    assert not (tmp_path / "out/shards.json").exists() and len(seen) < 40
    assert run(world, tmp_path / "out").kept == 2
    assert hashes(tmp_path / "out") == hashes(world / "whole")


def test_a_disk_that_fails_is_not_a_bad_record(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> bytes:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(ahead, "read_bytes", fail)
    with pytest.raises(InputError, match=r"r000: 0\.wav could not be read .*run the same command"):
        run(world, tmp_path / "out")
    monkeypatch.undo()
    run(world, tmp_path / "out")
    assert hashes(tmp_path / "out") == hashes(world / "whole")


@pytest.mark.parametrize("number", [0, 3, 7])
def test_a_full_disk_says_so_and_leaves_nothing_half_written(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real, seen = os.fsync, []

    def full(handle: int) -> None:
        if len(seen) == number:
            raise OSError(errno.ENOSPC, "no space left")
        seen.append(handle)
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"is full .*free some space and run the same command"):
        run(world, tmp_path / "out")
    monkeypatch.undo()
    assert not (tmp_path / "out/shards.json").exists()
    whole = hashes(world / "whole")
    assert all(whole[name] == value for name, value in hashes(tmp_path / "out").items())
    run(world, tmp_path / "out")
    assert hashes(tmp_path / "out") == whole
