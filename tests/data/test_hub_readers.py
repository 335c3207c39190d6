"""Hugging Face folders with the files that `save_to_disk` and the hub hold, and what they lose."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lumoomni.data import tables
from lumoomni.data.check import check
from lumoomni.data.readers import read
from lumoomni.data.sources import open_pictures
from lumoomni.data.stored import load_picture
from lumoomni.errors import InputError

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TURNS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))


def picture(shade: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (10, 8), (shade, 0, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def captions(count: int, first: int = 0) -> pa.Table:
    numbers = range(first, first + count)
    shown = pa.array([picture(i) for i in numbers], PICTURE)
    return pa.table({"image": shown, "caption": [f"shade {i}" for i in numbers]})


def saved(folder: Path, *parts: pa.Table) -> Path:
    """What `Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(parts):05d}.arrow" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        with (
            pa.OSFile(str(folder / name), "wb") as file,
            pa.ipc.new_stream(file, part.schema) as to,
        ):
            to.write_table(part, max_chunksize=3)
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "b2b2ea6cd8f6b118",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state, indent=2))
    features = {"image": {"_type": "Image"}, "caption": {"dtype": "string", "_type": "Value"}}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features, "license": ""}))
    return folder


def parquet(folder: Path, split: str, *parts: pa.Table) -> Path:
    """What the hub holds."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(parts):
        name = f"{split}-{i:05d}-of-{len(parts):05d}.parquet"
        pq.write_table(part, folder / "data" / name, row_group_size=3)
    return folder


def test_a_saved_data_set(tmp_path: Path) -> None:
    folder = saved(tmp_path / "one", captions(7), captions(4, 7))
    rows = read("hf", folder)
    assert [row.text for row in rows] == [f"shade {i}" for i in range(11)]
    assert rows[8].where == f"{folder / 'data-00001-of-00002.arrow'}[1]"
    assert str(rows[4].media) == f"{folder / 'data-00000-of-00002.arrow'}[4] image"
    assert [load_picture(row.files[0])[0, 0, 0] for row in rows] == list(range(11))
    assert len({row.asset for row in rows}) == 11 and not any(row.problem for row in rows)


def test_of_several_splits_train_is_read(tmp_path: Path) -> None:
    saved(tmp_path / "train", captions(3))
    saved(tmp_path / "test", captions(2, 100))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["test", "train"]}')
    assert [row.text for row in read("hf", tmp_path)] == ["shade 0", "shade 1", "shade 2"]
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["test"]}')
    assert len(read("hf", tmp_path)) == 2
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["test", "dev"]}')
    with pytest.raises(InputError, match="has the splits dev, test and none of them is train"):
        read("hf", tmp_path)


def test_parquet_of_the_hub(tmp_path: Path) -> None:
    folder = parquet(tmp_path, "train", captions(7), captions(4, 7))
    parquet(tmp_path, "validation", captions(2, 100))
    for place in (folder, folder / "data"):
        rows = read("hf", place)
        assert [row.text for row in rows] == [f"shade {i}" for i in range(11)]
        assert [load_picture(row.files[0])[0, 0, 0] for row in rows] == list(range(11))
    assert rows[8].where == f"{folder / 'data/train-00001-of-00002.parquet'}[1]"
    (folder / "data/train-00000-of-00002.parquet").unlink()
    with pytest.raises(InputError, match="holds 1 of the 2 Parquet files of train"):
        read("hf", folder)
    (folder / "data/train-00001-of-00002.parquet").unlink()
    assert len(read("hf", folder)) == 2


def test_parquet_under_other_names(tmp_path: Path) -> None:
    pq.write_table(captions(2), tmp_path / "0000.parquet")
    pq.write_table(captions(2, 2), tmp_path / "0001.parquet")
    assert len(read("hf", tmp_path)) == 4
    pq.write_table(captions(1, 9), tmp_path / "train.parquet")
    assert [row.text for row in read("hf", tmp_path)] == ["shade 9"]


def test_rows_of_one_group_unpack_it_once(tmp_path: Path) -> None:
    rows = read("hf", parquet(tmp_path, "train", captions(9)))
    tables._kept.cache_clear()
    for row in rows:
        load_picture(row.files[0])
    assert tables._kept.cache_info().misses == 3


def test_conversations_in_each_form(tmp_path: Path) -> None:
    told = [("human", "<image>\nWhat?"), ("gpt", "A cat.")]
    turns = [{"from": who, "value": said} for who, said in told]
    shown = pa.array([picture(1)], PICTURE)
    parts = [{"type": "text", "text": "What?"}, {"type": "image", "text": None}]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    ]
    columns = {
        "list": ("conversations", pa.array([turns], TURNS)),
        "record": (
            "conversations",
            pa.array([{"from": ["human", "gpt"], "value": [told[0][1], told[1][1]]}]),
        ),
        "parts": ("messages", pa.array([messages])),
    }
    for form, (name, column) in columns.items():
        table = pa.table({"id": ["x"], "image": shown, "caption": ["unused"], name: column})
        (row,) = read("hf", saved(tmp_path / form, table))
        assert (row.problem, row.before, row.text) == ("", (("user", "What?"),), "A cat."), form


def test_lists_of_pictures_stand_at_their_marks(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "This."}]
    shown = pa.array([[picture(1), picture(2)], [picture(3)], []], pa.list_(PICTURE))
    table = pa.table({"images": shown, "conversations": pa.array([turns] * 3, TURNS)})
    both, one, none = read("hf", saved(tmp_path / "a", table))
    assert both.places == ((0, 0), (0, 4)) and both.before[0][1] == " or ?"
    assert [load_picture(media)[0, 0, 0] for media in both.files] == [1, 2]
    assert str(both.files[1]).endswith("data-00000-of-00001.arrow[0] images 1")
    assert one.problem == "2 <image> marks for 1 image"
    assert none.problem == "2 <image> marks for 0 images"


def test_conversations_without_a_picture_are_text(tmp_path: Path) -> None:
    """A null, or an empty list; a caption without its picture is broken all the same."""
    turns = [{"from": "human", "value": "Tell me."}, {"from": "gpt", "value": "No."}]
    kinds = ((PICTURE, None), (pa.list_(PICTURE), None), (pa.list_(PICTURE), []))
    for number, (kind, nothing) in enumerate(kinds):
        shown = pa.array([nothing], kind)
        table = pa.table({"image": shown, "conversations": pa.array([turns], TURNS)})
        (row,) = read("hf", saved(tmp_path / f"talk{number}", table))
        assert row.text_only and (row.before, row.text) == ((("user", "Tell me."),), "No.")
        captioned = pa.table({"image": shown, "text": ["a cat"]})
        (row,) = read("hf", saved(tmp_path / f"caption{number}", captioned))
        assert row.problem.startswith("no picture") and not row.text_only


def test_pictures_as_paths_and_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "root" / "a.png")
    shown = {
        "struct": pa.array([{"bytes": None, "path": " .//a.png"}], PICTURE),
        "path": pa.array(["./a.png"]),
    }
    for form, column in shown.items():
        table = pa.table({"image": column, "text": ["black"]})
        (row,) = read("hf", saved(tmp_path / form, table), tmp_path / "root")
        assert row.asset == "a.png" and load_picture(row.files[0]).shape == (4, 4, 3)
    for kind in (pa.binary(), pa.large_binary()):
        table = pa.table({"picture": pa.array([picture(5)["bytes"]], kind), "text": ["red"]})
        (row,) = read("hf", saved(tmp_path / str(kind), table))
        assert load_picture(row.files[0])[0, 0, 0] == 5
    # A column of pictures by another name, where it is the only one.
    table = captions(1).rename_columns(["photo", "caption"])
    assert load_picture(read("hf", saved(tmp_path / "photo", table))[0].files[0])[0, 0, 0] == 0


def test_bad_records_are_named_one_by_one(tmp_path: Path) -> None:
    nothing = {"bytes": None, "path": None}
    shown = pa.array([picture(0), nothing, None, picture(1), picture(2), picture(3)], PICTURE)
    said = ["good", "x", "y", None, "", "half \xe9".encode("latin-1")]
    texts = pa.Array.from_buffers(
        pa.string(),
        6,
        pa.array(
            [t if t is None else (t if isinstance(t, bytes) else t.encode()) for t in said],
            pa.binary(),
        ).buffers(),
    )
    folder = saved(tmp_path / "a", pa.table({"image": shown, "caption": texts}))
    rows = read("hf", folder)
    for row, words in zip(
        rows,
        (
            "",
            "neither bytes nor a path",
            "neither bytes",
            "must be text: None",
            "empty text",
            "utf",
        ),
        strict=True,
    ):
        assert words in row.problem and bool(words) == bool(row.problem), row
    assert rows[3].where.endswith("[3]")


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_files_that_are_cut_off_are_named(tmp_path: Path, kind: str) -> None:
    if kind == "arrow":
        folder = saved(tmp_path / "a", captions(7))
        path = folder / "data-00000-of-00001.arrow"
    else:
        folder = parquet(tmp_path / "a", "train", captions(7))
        path = folder / "data/train-00000-of-00001.parquet"
    data = path.read_bytes()
    # Eight bytes are just the end mark of an Arrow stream: all batches before it can be read.
    for size in (len(data) - 8, len(data) // 2, 3, 0):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match=rf"0-of-00001.{kind} is damaged or cut off"):
            read("hf", folder)
    path.unlink()
    with pytest.raises(InputError, match=r"there is no file .*00000-of|holds no dataset_dict"):
        read("hf", folder)


def test_damage_inside_a_parquet_file_is_named(tmp_path: Path) -> None:
    folder = parquet(tmp_path, "train", captions(7))
    path = folder / "data/train-00000-of-00001.parquet"
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"train-00000-of-00001.parquet is damaged \(.*whole copy"):
        read("hf", folder)


def test_folders_that_hold_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no state\.json and no \.parquet"):
        read("hf", tmp_path)
    folder = saved(tmp_path / "a", captions(1).rename_columns(["image", "title"]))
    with pytest.raises(InputError, match=r"columns image, title; it needs one of conversations"):
        read("hf", folder)
    folder = saved(tmp_path / "b", captions(1).drop_columns(["image"]))
    with pytest.raises(InputError, match=r"columns caption; name the one with the pictures image"):
        read("hf", folder)
    state = json.loads((folder / "state.json").read_text())
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="flatten_indices"):
        read("hf", folder)
    (folder / "state.json").write_text("{}")
    with pytest.raises(InputError, match="names no _data_files"):
        read("hf", folder)


def test_without_the_library_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "a", captions(1))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs `pip install lumoomni\[data\]`"):
        read("hf", folder)


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_as_a_source(tmp_path: Path, kind: str) -> None:
    table = pa.concat_tables([captions(30), captions(30)])
    made = saved(tmp_path / "a", table) if kind == "arrow" else parquet(tmp_path, "train", table)
    source = open_pictures(f"hf:{made}", 0, 16)
    shades: list[set[int]] = []
    for split in ("train", "seen"):
        items = [source.item(split, i) for i in range(source.size(split) or 0)]
        assert all(item.image[0, 0, 0] == int(item.caption.split()[1]) for item in items)
        shades.append({int(item.image[0, 0, 0]) for item in items})
    assert not shades[0] & shades[1] and len(shades[0] | shades[1]) == 30
    report = check("hf", made)
    assert report.usable and report.repeated_files == 30 and report.pixels is not None
    assert report.repeated_named[0].endswith("[0] image")
    bad = {"bytes": b"no picture", "path": None}
    broken = pa.table({"image": pa.array([bad] * 4, PICTURE), "caption": ["x"] * 4})
    made = saved(tmp_path / "b", captions(36), broken)
    with pytest.raises(InputError, match=r"4 of 40 rows .*00002.arrow\[0\] image: has no picture"):
        open_pictures(f"hf:{made}", 0, 16)
