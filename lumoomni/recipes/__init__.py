"""Recipes by name; each function returns a Recipe with every setting resolved."""

from collections.abc import Callable

from lumoomni.pipeline import Recipe
from lumoomni.recipes.nano import nano

RECIPES: dict[str, Callable[[], Recipe]] = {"nano": nano}
