"""Documents: every command in them exists with its options, every file and stage they name too."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from lumoomni.cli import app
from lumoomni.errors import InputError
from lumoomni.recipes import resolve

ROOT = Path(__file__).parent.parent
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
# What a command line that cannot be parsed raises, whichever click typer uses.
Wrong = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")
BLOCK = re.compile(r"```[a-z]*\n(.*?)```", re.S)


def commands() -> list[tuple[str, str]]:
    """(page, command) for each `lumo ...` line of a code block, and each inline one."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for block in BLOCK.findall(text):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line) for line in lines if line.strip().startswith("lumo ")]
        inline = re.findall(r"`(lumo [^`]*)`", BLOCK.sub("", text))
        found += [(page.name, " ".join(one.split())) for one in inline]
    return found


def parse(words: list[str]) -> None:
    """As the command line would; raises Wrong for what it does not know."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words or [""]
        if name not in command.commands:
            raise Wrong(f"no command {name!r}")
        command = command.commands[name]
    if not [word for word in words if not word.startswith("-")]:
        words = [*words, "--help"]  # named in passing
    command.make_context(command.name, words, resilient_parsing=False).close()


def problem(words: list[str]) -> str:
    """What the command line would not understand, or nothing."""
    try:
        parse(words)
    except typer.Exit:  # after --help
        return ""
    except Wrong as error:
        return str(error)
    return ""


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) > 20


@pytest.mark.parametrize(("page", "line"), commands())
def test_documented_commands_parse(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if not words or "|" in words or any(word.isupper() and word.isalpha() for word in words):
        return  # a form such as `lumo build RECIPE`, or a list of verbs
    assert problem(words) == "", page


def test_what_no_command_knows_is_seen() -> None:
    for words in (["fly", "x"], ["chat", "runs/nano", "--colour", "red"], ["data", "fetch"]):
        assert problem(words)


def test_settings_in_documents_are_settings() -> None:
    seen = 0
    for page, line in commands():
        words = shlex.split(line, comments=True)
        if words[1:2] not in (["build"], ["plan"]) or not words[2:3] or "|" in words:
            continue
        if words[2].isupper() or words[2].startswith("-"):
            continue
        recipe = resolve(words[2])
        settings = [word for word in words[3:] if "=" in word and not word.startswith("-")]
        try:
            recipe.override(settings)
        except InputError as error:
            pytest.fail(f"{page}: {line!r}: {error}")
        seen += len(settings)
    assert seen >= 5


def test_the_tree_in_the_readme_is_the_tree() -> None:
    """Each module of the package is named in README's tree, and each name there is a module."""
    text = (ROOT / "README.md").read_text().split("## The tree", 1)[1]
    block = BLOCK.findall(text)[0]
    named = set(re.findall(r"\b[a-z][a-z_0-9]+\b", block))
    modules = {
        path.stem
        for path in (ROOT / "lumoomni").rglob("*.py")
        if path.stem != "__init__" and path.parent.name != "stages"
    }
    assert not modules - named, f"not in the tree: {sorted(modules - named)}"
