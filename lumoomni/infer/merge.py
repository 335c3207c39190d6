"""A model's adapters folded into its Thinker, as a Hugging Face Qwen3 folder.

Knows: where adapters are. Does not know: pictures, sound or new rows, which stay where they are, so
that the folder is a text model (`infer/export.py` takes rows along, and writes a card).
Costs: the model once, and its bytes on the disk.
"""

from dataclasses import dataclass
from pathlib import Path

from lumoomni.errors import InputError
from lumoomni.infer.assemble import gather
from lumoomni.infer.base_model import open_base
from lumoomni.infer.export import write_text
from lumoomni.model.hf_weights import save_thinker
from lumoomni.model.lora import merge
from lumoomni.model.thinker import Thinker
from lumoomni.runtime import whole_folder


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The folder, how many matrices adapters were folded into, and the type they are stored in."""

    folder: Path
    matrices: int
    dtype: str


def merge_model(model: Path, out: Path, *, unproven: bool = False) -> Merged:
    """Write the merged Thinker and its text files to `out`, all or nothing.

    Raises InputError when there are no adapters, and when something is in `out` already.
    """
    with whole_folder(out, "the merged model") as folder:
        parts = gather(model, unproven=unproven)
        thinker = parts.need("thinker")
        assert isinstance(thinker, Thinker)
        matrices = merge(thinker)
        if not matrices:
            raise InputError(
                f"{parts.artifact.path} has no adapters to merge; give a model that was instructed "
                "with LoRA"
            )
        save_thinker(thinker, folder)
        write_text(open_base(model, unproven=unproven), folder)
    dtype = str(thinker.token_table.weight.dtype).removeprefix("torch.")
    return Merged(folder=out, matrices=matrices, dtype=dtype)
