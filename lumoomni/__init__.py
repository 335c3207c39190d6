"""LumoOmni: a text-only language model that learns to see, hear and speak, stage by stage."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lumoomni.infer.chat import Lumo

__version__ = "0.1.0"


def load(path: "str | Path", *, unproven: bool = False) -> "Lumo":
    """Open a model: a build directory or an artifact directory.

    With `unproven`, stages that failed their gate are used too; `lumo.parts.unproven` names them.
    Raises InputError when it is missing, damaged, from a newer version or failed its gate.
    """
    from lumoomni.infer.chat import Lumo  # torch is loaded only when a model is

    return Lumo.load(path, unproven=unproven)
