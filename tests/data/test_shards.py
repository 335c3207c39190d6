"""Shards: the same bytes for the same rows, views of the file, and no damage that goes unseen."""

import json
import pickle
import socket
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from lumoomni.cli import app
from lumoomni.codecs.facts import CodecFacts
from lumoomni.data import storage
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.shards import (
    Bad,
    Shard,
    ShardNote,
    Tokenized,
    intact,
    open_shard,
    schema,
    shard_bytes,
)
from lumoomni.errors import InputError
from lumoomni.uti.space import new_space

pa = pytest.importorskip("pyarrow")

NOTE = ShardNote(abi="a" * 64, inputs="b" * 64, bad=(Bad(id="z", path="z.wav", reason="no"),))


def rows(count: int, *, image: int = 6) -> list[dict[str, Any]]:
    stream = np.random.default_rng(0)
    return [
        {
            "id": f"é{i}",
            "source": "s",
            "task": ("i2t", "a2t")[i % 2],
            "split": "train",
            "official": "",
            "text": stream.integers(0, 300, i % 4).astype(np.int32),
            "prompt": np.zeros(0, dtype=np.int32),
            "image": stream.integers(0, 16, image if i % 2 == 0 else 0).astype(np.int32),
            "audio": stream.integers(0, 16, 2 * i if i % 2 else 0).astype(np.int32),
            "frames": i if i % 2 else 0,
            "image_sha256": f"{i:064x}" if i % 2 == 0 else "",
            "audio_sha256": f"{i:064x}" if i % 2 else "",
            "meta": {"size": [i, 2], "side": {"scale": [0.5]}},
        }
        for i in range(count)
    ]


def same(found: Tokenized, row: dict[str, Any]) -> bool:
    return all(
        np.array_equal(getattr(found, name), value)
        if isinstance(value, np.ndarray)
        else getattr(found, name) == value
        for name, value in row.items()
    )


def folder(path: Path, counts: dict[str, list[int]]) -> Path:
    """A finished folder of shards, written by hand."""
    space = new_space(300, "t", [CodecFacts(kind="image", name="i", weights="w", codebooks=1,
                                            codebook_size=16, tokens=6)])  # fmt: skip
    files, said = {}, {}
    for split, sizes in counts.items():
        for number, size in enumerate(sizes):
            data = shard_bytes(rows(size), ShardNote(abi=space.abi, inputs="x"))
            name = f"{split}/shard-{number:05d}.arrow"
            storage.write_bytes(path / name, data)
            files[name] = {"sha256": storage.sha256(path / name), "bytes": len(data), "rows": size}
        said[split] = {"rows": sum(sizes), "bad": 0, "tokens": {}, "tasks": {}}
    (path / "errors.jsonl").write_text("")
    files["errors.jsonl"] = {"sha256": storage.sha256(path / "errors.jsonl"), "bytes": 0, "rows": 0}
    index = {"schema": 1, "abi": space.abi, "space": space.meaning(), "manifest": "m", "codec": {},
             "counts": said, "files": files}  # fmt: skip
    (path / "shards.json").write_text(json.dumps(index))
    return path


def test_rows_come_back_and_equal_rows_are_equal_bytes(tmp_path: Path) -> None:
    given = rows(9)
    data = shard_bytes(given, NOTE)
    assert data == shard_bytes(rows(9), NOTE) != shard_bytes(rows(8), NOTE)
    path = tmp_path / "x.arrow"
    path.write_bytes(data)
    shard = open_shard(str(path))
    assert shard.rows == 9 and all(same(shard.sample(i), given[i]) for i in range(9))
    assert shard.note.bad == NOTE.bad and shard.note.inputs == NOTE.inputs
    assert shard.counts.rows == 9 and shard.counts.tasks == {"a2t": 4, "i2t": 5}
    assert shard.counts.tokens["image"] == 30 and shard.counts.tokens["audio"] == 2 * (
        1 + 3 + 5 + 7
    )
    for wrong in (-1, 9):
        with pytest.raises(IndexError):
            shard.sample(wrong)


def test_a_shard_of_no_row_is_a_shard() -> None:
    shard = Shard(pa.py_buffer(shard_bytes([], NOTE)), "x")
    assert shard.rows == 0 and shard.note.bad == NOTE.bad
    assert sum(shard.counts.tokens.values()) == 0


def test_the_columns_are_those_that_other_programs_were_told() -> None:
    ids = pa.list_(pa.int32())
    wanted = {name: pa.string() for name in ("id", "source", "task", "split", "official")}
    wanted |= dict.fromkeys(("text", "prompt", "image", "audio"), ids)
    wanted |= {"frames": pa.int32(), "image_sha256": pa.string()}
    wanted |= {"audio_sha256": pa.string(), "meta": pa.string()}
    assert dict(zip(schema().names, schema().types, strict=True)) == wanted


def test_arrays_are_views_of_the_file_and_cost_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    path.write_bytes(shard_bytes(rows(64, image=150_000), NOTE))
    size = path.stat().st_size
    assert size > 18e6
    before = psutil.Process().memory_info().rss
    shard = open_shard(str(path))
    found = shard.sample(40)
    assert psutil.Process().memory_info().rss - before < size / 5
    assert not found.image.flags.owndata and not found.image.flags.writeable
    values = shard.batch.column("image").values.to_numpy(zero_copy_only=True)
    assert np.shares_memory(found.image, values)
    # The pages are the file's own: what is changed there is seen here.
    at = path.read_bytes().index(found.image[:64].tobytes())
    with path.open("r+b") as file:
        file.seek(at)
        file.write(np.int32(12345).tobytes())
    assert found.image[0] == 12345
    del shard
    assert found.image[0] == 12345  # the map lives as long as its views
    fds = [one.resolve() for one in Path("/proc/self/fd").iterdir()]
    assert path.resolve() not in fds  # thousands of shards may be open


def test_each_changed_byte_makes_a_shard_not_intact() -> None:
    given = rows(3)
    given[0]["meta"]["side"] = {"digest": "0" * 64}  # as its own note says it
    data = shard_bytes(given, NOTE)
    assert intact(data) and same(Shard(pa.py_buffer(data), "x").sample(0), given[0])
    assert not intact(data[:-1]) and not intact(data + b"x") and not intact(b"")
    stream = np.random.default_rng(0)
    for at in range(len(data)):
        wrong = bytearray(data)
        wrong[at] ^= 1 << int(stream.integers(8))
        assert not intact(bytes(wrong)), at


def test_other_arrow_files_are_refused(tmp_path: Path) -> None:
    def write(table: Any) -> str:
        with (
            pa.OSFile(str(tmp_path / "y.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as out,
        ):
            out.write_table(table, max_chunksize=2)
        return str(tmp_path / "y.arrow")

    with pytest.raises(InputError, match="no shard of ours"):
        open_shard(write(pa.table({"x": [1]})))
    with pytest.raises(InputError, match="record batches"):
        open_shard(write(pa.table({"x": [1, 2, 3]})))
    batch = pa.ipc.open_file(pa.py_buffer(shard_bytes(rows(1), NOTE))).read_all()
    note = batch.schema.metadata
    with pytest.raises(InputError, match="has the columns id: string"):
        open_shard(write(batch.drop(["meta"]).replace_schema_metadata(note)))
    holes = batch.set_column(10, "image_sha256", pa.array([None], pa.string()))
    with pytest.raises(InputError, match="missing values in \\['image_sha256'\\]"):
        open_shard(write(holes.replace_schema_metadata(note)))
    (tmp_path / "y.arrow").write_bytes(b"ARROW1 and no more")
    with pytest.raises(InputError, match=r"y\.arrow is no whole shard"):
        open_shard(str(tmp_path / "y.arrow"))
    with pytest.raises(InputError, match="cannot be opened"):
        open_shard(str(tmp_path / "none.arrow"))


def test_a_set_gives_each_row_of_each_split_once(tmp_path: Path) -> None:
    shards = ShardSet.open(folder(tmp_path / "s", {"train": [5, 0, 3], "eval": [2]}))
    assert shards.splits == ("eval", "train") and len(shards) == 10
    assert shards.len("train") == 8 and shards.counts["train"].rows == 8
    assert shards.abi == shards.space.abi
    for opened in (shards, pickle.loads(pickle.dumps(shards))):
        wanted = rows(5) + rows(3)
        assert all(same(opened.sample("train", i), wanted[i]) for i in range(8))
    for wrong in (-1, 8):
        with pytest.raises(IndexError):
            shards.sample("train", wrong)
    with pytest.raises(InputError, match="no split 'test'; it has eval, train"):
        shards.len("test")


@pytest.mark.parametrize("verify", [True, False])
def test_what_is_not_whole_is_refused_by_name(tmp_path: Path, verify: bool) -> None:
    path = folder(tmp_path / "s", {"train": [5, 3]})
    last = path / "train/shard-00001.arrow"
    whole = last.read_bytes()

    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match):
            ShardSet.open(path, verify=verify)

    ShardSet.open(path, verify=verify)
    last.write_bytes(whole[:-5])
    refused(rf"shard-00001.arrow has {len(whole) - 5:,} bytes, shards.json says {len(whole):,}")
    last.unlink()
    refused("lacks train/shard-00001.arrow")
    last.write_bytes(whole)
    (path / "train/more.arrow").write_bytes(whole)
    refused("holds train/more.arrow, which shards.json does not list")
    (path / "train/more.arrow").unlink()
    index = json.loads((path / "shards.json").read_text())
    for change, match in (
        ({"abi": "0" * 64}, "changed by hand"),
        ({"schema": 2}, "schema 2"),
        ({"space": {}}, "of version None"),
        ({"files": 3}, "is damaged"),
        ({"files": {**index["files"], "errors.jsonl": {}}}, "is damaged"),
    ):
        (path / "shards.json").write_text(json.dumps({**index, **change}))
        refused(match)
    del index["counts"]
    (path / "shards.json").write_text(json.dumps(index))
    refused("lacks counts")
    (path / "shards.json").write_text("{")
    refused("is damaged")
    (path / "shards.json").unlink()
    refused("tokenizing is unfinished")
    with pytest.raises(InputError, match="there is no"):
        ShardSet.open(tmp_path / "none", verify=verify)


def test_a_flipped_byte_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "s", {"train": [5, 3]})
    for name in ("train/shard-00000.arrow", "train/shard-00001.arrow"):
        data = bytearray((path / name).read_bytes())
        at = len(data) // 2
        data[at] ^= 1
        (path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name} changed since it was made"):
            ShardSet.open(path)
        data[at] ^= 1
        (path / name).write_bytes(data)
    ShardSet.open(path)


def test_wrong_counts_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "s", {"train": [5, 3]})
    index = json.loads((path / "shards.json").read_text())
    index["counts"]["train"]["rows"] = 9
    (path / "shards.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"holds \{'train': 8\} rows, shards.json says .*9"):
        ShardSet.open(path)
    index["files"]["train/shard-00001.arrow"]["rows"] = 4
    (path / "shards.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"holds 3 rows, shards\.json says 4"):
        ShardSet.open(path)


def test_another_space_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "s", {"train": [1]})
    abi = ShardSet.open(path).abi
    assert ShardSet.open(path, abi=abi).abi == abi
    with pytest.raises(InputError, match="made in token space"):
        ShardSet.open(path, abi="0" * 64)
    # A shard of another space among ours, with a seal that fits it.
    name = "train/shard-00000.arrow"
    data = shard_bytes(rows(1), ShardNote(abi="0" * 64, inputs="x"))
    (path / name).write_bytes(data)
    index = json.loads((path / "shards.json").read_text())
    index["files"][name] |= {"sha256": storage.sha256(path / name), "bytes": len(data)}
    (path / "shards.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"shard-00000.arrow was made in token space 000"):
        ShardSet.open(path)


def test_urls_are_places_too(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    made = folder(tmp_path / "s", {"train": [5], "eval": [2]})
    memory.put(str(made), "/shards-of-tests", recursive=True)
    try:
        shards = ShardSet.open("memory://shards-of-tests")
        assert shards.len("train") == 5 and same(shards.sample("train", 4), rows(5)[4])
        storage.write_bytes("memory://shards-of-tests/eval/more", b"x")
        with pytest.raises(InputError, match="holds eval/more"):
            ShardSet.open("memory://shards-of-tests")
        storage.remove("memory://shards-of-tests/eval/more")
        storage.write_bytes("memory://shards-of-tests/eval/shard-00000.arrow", b"x")
        with pytest.raises(InputError, match="has 1 bytes"):
            ShardSet.open("memory://shards-of-tests")
        with pytest.raises(InputError, match="cannot be read"):
            storage.read_bytes("memory://shards-of-tests/none")
    finally:
        memory.rm("/shards-of-tests", recursive=True)
    assert ShardSet.open(f"file://{made}").len("eval") == 2
    with pytest.raises(InputError, match="no place that fsspec knows"):
        storage.read_bytes("nowhere://x/y")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server without listings, and the folder that it serves."""
    pytest.importorskip("aiohttp")

    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(tmp_path))

        def list_directory(self, path: Any) -> None:
            self.send_error(403, "no listing")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_web_server_that_lists_nothing_serves_shards(web: tuple[str, Path]) -> None:
    url, root = web
    made = folder(root / "s", {"train": [5, 2], "eval": [2]})
    shards = ShardSet.open(f"{url}/s")
    assert shards.len("train") == 7 and same(shards.sample("train", 4), rows(5)[4])
    for command in (["stats"], ["verify"], ["peek", "2"]):
        verb, *more = command
        said = CliRunner().invoke(app, ["data", verb, f"{url}/s", *more, "--json"])
        assert said.exit_code in (0, 1), said.output  # so few rows may fail a gate
        assert json.loads(said.stdout)
    shard = made / "train" / "shard-00001.arrow"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match=r"shard-00001.arrow changed since it was made"):
        ShardSet.open(f"{url}/s")
    shard.write_bytes(whole[:-8])
    with pytest.raises(InputError, match=r"shard-00001.arrow has .* bytes"):
        ShardSet.open(f"{url}/s")
    shard.unlink()
    with pytest.raises(InputError, match=r"lacks train/shard-00001.arrow"):
        ShardSet.open(f"{url}/s")
    for missing in ("none", "s/train"):
        said = CliRunner().invoke(app, ["data", "stats", f"{url}/{missing}"])
        assert said.exit_code == 2 and said.stderr.startswith("error: ")
        assert "Traceback" not in said.output


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    pytest.importorskip("aiohttp")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/s"
        said = CliRunner().invoke(app, ["data", "peek", url, "0"])
    assert said.exit_code == 2 and "Traceback" not in said.output
    assert "does not answer" in said.stderr and len(said.stderr.strip().splitlines()) == 1


def test_a_server_that_refuses_is_not_one_that_lacks_the_file(
    web: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = web
    (folder / "there.arrow").write_bytes(b"12345")
    assert storage.sizes(url, ["there.arrow", "absent.arrow"]) == {"there.arrow": 5}
    assert storage.exists(f"{url}/there.arrow") and not storage.exists(f"{url}/absent.arrow")

    def refuse(self: SimpleHTTPRequestHandler) -> None:
        self.send_error(503, "try later")

    for method in ("do_GET", "do_HEAD"):
        monkeypatch.setattr(SimpleHTTPRequestHandler, method, refuse)
    for ask in (lambda: storage.exists(f"{url}/there.arrow"), lambda: storage.sizes(url, ["x"])):
        with pytest.raises(InputError, match=r"does not answer .*503"):
            ask()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")

    def fail(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(InputError, match=r"Install s3fs to access S3.*install it with pip"):
        storage.read_bytes("s3://bucket/x")
