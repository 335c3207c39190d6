"""Files of at most 400 lines, functions of at most 60, and a docstring on top of each module."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
FOLDERS = ("lumoomni", "tests", "benchmarks", "examples")


def files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def test_files_are_collected() -> None:
    assert len(files()) >= 80


def test_files_are_short() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in files()
        if (lines := path.read_text().count("\n")) > 400
    }
    assert long.keys() == LONG_FILES, long


def test_functions_are_short() -> None:
    long = set()
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno + 1 > 60:
                    long.add(f"{path.relative_to(ROOT).as_posix()}:{node.name}")
    assert long == LONG_FUNCTIONS, long


def test_modules_say_what_they_are() -> None:
    silent = [
        p
        for p in files()
        if p.name != "__init__.py" and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert not silent, silent
