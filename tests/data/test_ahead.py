"""Files in turn: in order, with what cannot be read in its place, here and from a web server."""

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lumoomni.data import ahead
from lumoomni.data.ahead import FAR, in_turn
from lumoomni.errors import InputError

COUNT = 3 * FAR


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing of what it serves."""

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """COUNT files that hold their numbers, but for number 5."""
    for number in range(COUNT):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    (tmp_path / "5").unlink()
    return tmp_path


@pytest.fixture
def web(files: Path) -> Iterator[str]:
    """The files at a web server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(files)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def sets(place: str) -> list[list[str]]:
    """None, one, two, none, ... files each, all COUNT in turn."""
    found: list[list[str]] = []
    names = iter([f"{place}/{number}" for number in range(COUNT)])
    for name in names:
        found += [[], [name], [one for one in (next(names, ""), next(names, "")) if one]]
    return found


@pytest.mark.parametrize("kind", ["path", "file", "web"])
def test_all_files_come_in_turn_and_a_missing_one_says_so_in_its_place(
    files: Path, web: str, kind: str
) -> None:
    wanted = sets({"path": str(files), "file": f"file://{files}", "web": web}[kind])
    found = list(in_turn(wanted))
    assert [len(one) for one in found] == [len(one) for one in wanted]
    flat = [one for some in found for one in some]
    assert isinstance(flat[5], InputError) and "/5 cannot be read" in str(flat[5])
    numbers = [b"%d" % number for number in range(COUNT) if number != 5]
    assert flat[:5] + flat[6:] == numbers


def test_no_files_are_none() -> None:
    assert list(in_turn([])) == []


def test_both_kinds_and_a_server_that_is_not_there(files: Path, web: str) -> None:
    found = list(in_turn([[f"{files}/1"], ["http://127.0.0.1:9/2"], [f"{web}/3"]]))
    assert found[0] == [b"1"] and found[2] == [b"3"]
    assert isinstance(found[1][0], InputError) and "does not answer" in str(found[1][0])


def test_a_disk_that_fails_is_an_error_in_its_place(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ahead.read_bytes

    def read(path: str) -> bytes:
        if path.endswith("/2"):
            raise OSError("the disk is gone")
        return real(path)

    monkeypatch.setattr(ahead, "read_bytes", read)
    one, two, three = in_turn([[f"{files}/{number}"] for number in (1, 2, 3)])
    assert one == [b"1"] and isinstance(two[0], OSError) and three == [b"3"]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot be asked")
def test_the_kernel_hears_of_files_before_they_are_read(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *rest: said.append(file))
    reading = in_turn([[f"{files}/{number}"] for number in range(COUNT)])
    next(reading)
    assert len(said) == FAR, "FAR sets before the first and one for it, of which one is missing"
    list(reading)
    assert len(said) == COUNT - 1
    opened = Path("/proc/self/fd")
    before = len([*opened.iterdir()]) if opened.is_dir() else 0
    list(in_turn([[f"{files}/{number}"] for number in range(COUNT)]))
    assert not before or len([*opened.iterdir()]) == before


def test_remote_files_are_fetched_only_so_far_ahead(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ahead, "is_url", lambda path: True)
    monkeypatch.setattr(ahead, "read_bytes", lambda path: asked.append(path) or b"")
    reading = in_turn([[str(number)] for number in range(COUNT)])
    next(reading)
    reading.close()
    assert len(asked) <= FAR + 1
