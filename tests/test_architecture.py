"""The tree is the diagram: who may import whom, and no cycles."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lumoomni"

# What each package may import besides itself and the top-level files below it in BASE.
ALLOWED: dict[str, set[str]] = {
    "media": set(),
    "codecs": {"media"},
    "uti": {"codecs", "media"},
    "model": set(),
    "data": {"uti", "codecs", "media"},
    "train": {"uti", "model", "data", "codecs", "media"},
    "infer": {"uti", "model", "data", "codecs", "media"},
    "audits": {"uti", "model", "data", "codecs", "media", "train", "infer"},
    "stages": {"uti", "model", "data", "codecs", "media", "train", "infer", "audits"},
    "recipes": {"uti", "model", "data", "codecs", "media", "train", "infer", "audits", "stages"},
    "report": {"media", "audits"},
}
BASE = {
    "errors",
    "ids",
    "config",
    "gates",
    "arithmetic",
    "runtime",
    "artifacts",
    "pipeline",
    "inspection",
    "shapes",
    "inputs",
}
TOP = {"errors", "ids", "config", "gates"}


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


def imports(path: Path) -> set[str]:
    """Everything of ours that a file imports, lazily or for types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "lumoomni"}


def test_enough_modules_are_seen() -> None:
    assert len(modules()) >= 60


def test_imports_follow_the_table() -> None:
    wrong = []
    for name, path in modules().items():
        parts = name.split(".")
        if len(parts) < 3:
            continue
        for target in imports(path):
            pieces = target.split(".")
            if len(pieces) < 2 or pieces[1] == parts[1]:
                continue
            if pieces[1] not in ALLOWED[parts[1]] | BASE | {"__version__"}:
                wrong.append(f"{name} imports {target}")
    assert not wrong, wrong


def test_nothing_imports_the_command_line() -> None:
    for name, path in modules().items():
        if name.startswith("lumoomni.cli") or name == "lumoomni.exits":
            continue
        bad = [t for t in imports(path) if t.split(".")[1:2] and t.split(".")[1].startswith("cli")]
        assert not bad, (name, bad)


def test_gates_use_the_standard_library_only() -> None:
    tree = ast.parse((PACKAGE / "gates.py").read_text())
    for node in ast.walk(tree):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        for name in names:
            assert name.split(".")[0] in {"math", "random", "collections", "dataclasses", "typing"}


def test_no_import_cycles() -> None:
    known = modules()
    graph = {
        name: {target for target in imports(path) if target in known and target != name}
        for name, path in known.items()
    }
    # `lumoomni` itself imports lazily for its users; a package's own __init__ holds no code.
    for targets in graph.values():
        targets.discard("lumoomni")
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
