"""How a command ends: 0 done, 1 a gate failed, 2 bad input, 130 stopped by the user.

A file that the system refuses to open or write is bad input too, told in its own words.

Knows: the mapping from exceptions to one sentence on stderr and an exit code. Costs: nothing.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import typer

from lumoomni.errors import GateFailure, InputError, RunFailure
from lumoomni.runtime import Interrupted


@contextlib.contextmanager
def verb() -> Iterator[None]:
    """Wrap a command's body."""
    try:
        yield
    except (InputError, RunFailure) as error:
        _leave(f"error: {error}", 2)
    except GateFailure as error:
        _leave(f"gate failed: {error}", 1)
    except OSError as error:
        if error.filename is None:
            raise
        where = f"{error.filename}: {error.strerror}"
        _leave(f"error: {where}; check the path, and who may read and write there", 2)
    except (Interrupted, KeyboardInterrupt):
        _leave("stopped; run the same command to continue", 130)


def _leave(message: str, code: int) -> None:
    print(message, file=sys.stderr, flush=True)
    raise typer.Exit(code)


def print_json(data: Any) -> None:
    """The one JSON object that a command with --json writes to stdout."""
    print(json.dumps(data, ensure_ascii=False), flush=True)
