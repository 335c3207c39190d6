"""What docs/shards.md says about reading shards, done as it stands there."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from lumoomni.data.shards import ShardNote, shard_bytes
from tests.data.test_shards import folder, rows

PAGE = Path(__file__).parent.parent.parent / "docs/shards.md"
BLOCKS = dict(re.findall(r"\n(\w+):\n\n```python\n(.*?)```", PAGE.read_text(), re.S))
pytest.importorskip("pyarrow")


def said(name: str, monkeypatch: pytest.MonkeyPatch, path: Path) -> tuple[str, dict[str, Any]]:
    """What a block prints and leaves."""
    pytest.importorskip(name, reason=f"reads shards without our code; needs {name}")
    folder(path / "runs/shards", {"train": [9, 4], "eval": [2]})
    monkeypatch.chdir(path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, Any] = {}
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(BLOCKS[name], names)  # noqa: S102 - a page of ours
    return shown.getvalue(), names


def test_four_programs_have_three_lines_each() -> None:
    assert set(BLOCKS) == {"pandas", "polars", "DuckDB", "datasets"}
    lines = [[one for one in block.splitlines() if one] for block in BLOCKS.values()]
    assert [len(one) for one in lines] == [3] * 4


def test_pandas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown, names = said("pandas", monkeypatch, tmp_path)
    table = names["rows"]
    for place, row in enumerate(rows(9)):
        assert table["id"][place] == row["id"] and table["image"][place].tolist() == list(
            row["image"]
        )
    assert "é8" in shown


def test_polars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown, names = said("polars", monkeypatch, tmp_path)
    given = rows(9) + rows(4)
    table = names["rows"].collect()
    assert table["text"].to_list() == [row["text"].tolist() for row in given]
    assert "a2t" in shown and "i2t" in shown


def test_duckdb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(BLOCKS, "duckdb", BLOCKS["DuckDB"])
    shown, names = said("duckdb", monkeypatch, tmp_path)
    total = sum(len(row["audio"]) for row in rows(9))
    assert names["rows"].num_rows == 9 and str(total) in shown and "a2t" in shown


def test_datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown, names = said("datasets", monkeypatch, tmp_path)
    assert len(names["rows"]) == 13 and shown.startswith("é0 0")
    assert names["rows"][12]["audio"] == rows(4)[3]["audio"].tolist()


def test_no_column_has_a_type_of_ours() -> None:
    import pyarrow as pa

    table = pa.ipc.open_file(pa.py_buffer(shard_bytes(rows(2), ShardNote(abi="", inputs=""))))
    assert not any(isinstance(kind, pa.ExtensionType) for kind in table.schema.types)
