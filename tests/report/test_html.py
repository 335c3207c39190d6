"""The report reads rows whatever their words hold, and past what a kill tore."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from lumoomni.media.image import save_png
from lumoomni.report.html import _curves, _golden


def test_rows_are_read_past_separators_and_torn_lines(tmp_path: Path) -> None:
    rows = [
        {"step": step, "item": 0, "wanted": "a\u2028b", "said": f"c\u2029d\x85e {step}", "sha1": ""}
        for step in (0, 5)
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "golden.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "golden").mkdir()
    save_png(tmp_path / "golden" / "0.png", np.zeros((4, 4, 3), np.uint8))
    log = [json.dumps({"step": i, "loss": 2.0 - i / 10, "time": i}) for i in range(5)]
    (tmp_path / "log.jsonl").write_text("\n".join([*log, '{"step": 5, "lo']))
    artifact = cast(Any, SimpleNamespace(path=tmp_path, kind="align_connector"))
    page = _golden(artifact)
    assert "e 0" in page and "e 5" in page
    assert "Learning curves" in _curves([artifact])
