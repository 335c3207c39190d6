"""A few fixed pictures, described again and again while a connector trains.

Numbers say that something changed; the same captions side by side say what. Each description is
kept with a short hash, so that "nothing changed any more" is plain to see.
Does not know: training. Costs: one batch of greedy answers each time.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lumoomni.data.conversation import Layout, picture_turns
from lumoomni.data.sample import PictureItem
from lumoomni.infer.answer import answer, omni_embedder
from lumoomni.media.image import save_png
from lumoomni.model.omni import OmniModel
from lumoomni.runtime import append_line, atomic_write_text, read_lines

LISTING = "golden.jsonl"
PICTURES = "golden"


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The items, and how the model is asked about them; rows are appended to `folder`."""

    model: OmniModel
    layout: Layout
    items: Sequence[PictureItem]
    request: str
    folder: Path

    def look(self, step: int) -> None:
        """Describe every item and write it down."""
        prompts = [picture_turns(item, self.request)[:-1] for item in self.items]
        said = answer(self.model.thinker, omni_embedder(self.model), self.layout, prompts)
        for index, (item, text) in enumerate(zip(self.items, said, strict=True)):
            row = {
                "step": step,
                "item": index,
                "name": item.name,
                "wanted": item.caption,
                "said": text,
                "sha1": hashlib.sha1(text.encode()).hexdigest()[:8],
            }
            append_line(self.folder / LISTING, row)

    def keep(self, out: Path) -> None:
        """Copy the rows, the latest of each step where a run was killed, and save the pictures."""
        rows = {(row["step"], row["item"]): row for row in read_lines(self.folder / LISTING)}
        lines = [json.dumps(rows[key], ensure_ascii=False) + "\n" for key in sorted(rows)]
        atomic_write_text(out / LISTING, "".join(lines))
        (out / PICTURES).mkdir(exist_ok=True)
        for index, item in enumerate(self.items):
            save_png(out / PICTURES / f"{index}.png", item.image)
