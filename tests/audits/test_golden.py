"""Golden rows: kept whole, whatever the words hold, and the latest of each step."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from lumoomni.audits.golden import LISTING, Golden
from lumoomni.data.sample import PictureItem


def test_rows_keep_separators_and_lines_of_a_kill_are_left_out(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    rows = [{"step": step, "item": 0, "said": f"a\u2028b\u2029c\x85{step}"} for step in (0, 5, 5)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (work / LISTING).write_text(lines + '{"step": 9, "it')
    picture = PictureItem(np.zeros((4, 4, 3), np.uint8), "a", None, "a")
    none = cast(Any, None)
    Golden(model=none, layout=none, items=[picture], request="?", folder=work).keep(out)
    kept = [json.loads(line) for line in (out / LISTING).read_text().split("\n") if line]
    assert kept == [rows[0], rows[2]]
