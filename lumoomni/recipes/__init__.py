"""Recipes by name; each function returns a Recipe with every setting resolved."""

import json
from collections.abc import Callable
from pathlib import Path

from lumoomni.config import nearest
from lumoomni.errors import InputError
from lumoomni.pipeline import Recipe
from lumoomni.recipes.muomni import muomni
from lumoomni.recipes.nano import nano
from lumoomni.recipes.qwen3 import qwen3_06b, qwen3_06b_onestage, qwen3_8b

RECIPES: dict[str, Callable[[], Recipe]] = {
    "nano": nano,
    "muomni": muomni,
    "qwen3-0.6b": qwen3_06b,
    "qwen3-0.6b-onestage": qwen3_06b_onestage,
    "qwen3-8b": qwen3_8b,
}


def resolve(name: str) -> Recipe:
    """A recipe by name, or from a saved `recipe.json`. Raises InputError for an unknown one."""
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.suffix != ".json":
        raise InputError(f"there is no recipe {name!r}; {nearest(name, RECIPES)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a recipe's name or a saved recipe.json")
    try:
        data = json.loads(path.read_text())
        base = RECIPES[data["recipe"]]()
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no saved recipe: {error!r}") from error
    return base.with_settings(data)
