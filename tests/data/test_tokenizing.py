"""Tokenizing: the same bytes after any kill, bad media named and bounded, nothing half done."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lumoomni import runtime
from lumoomni.codecs.facts import CodecFacts, Coded
from lumoomni.data import storage, tokenize_run, tokenizing
from lumoomni.data.manifest import Record, read_manifest, write_manifest
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.tokenizing import Job, tokenize_shard
from lumoomni.errors import GateFailure, InputError
from lumoomni.media.audio import load_audio
from lumoomni.media.image import save_png
from lumoomni.runtime import atomic_write_bytes
from lumoomni.uti.interface import UTI
from lumoomni.uti.space import flatten, new_space
from tests.data.shard_world import asset, hashes, records, run, write_records

pytest.importorskip("pyarrow")


def altered(world: Path, to: Path, change: Callable[[Path], None]) -> Path:
    """A copy of the data with something changed after the manifest was written."""
    shutil.copytree(world / "data", to)
    change(to)
    return to / "manifest.jsonl"


def test_each_row_holds_what_encoding_gives(world: Path) -> None:
    uti, shards = UTI.load(world / "space"), ShardSet.open(world / "whole")
    given = list(read_manifest(world / "data/manifest.jsonl"))
    assert shards.abi == uti.space.abi and shards.splits == ("eval", "train")
    for split in shards.splits:
        wanted = [record for record in given if record.split == split]
        assert shards.len(split) == len(wanted)
        for place, record in enumerate(wanted):
            row = shards.sample(split, place)
            assert (row.id, row.task, row.source, row.split, row.official) == (
                record.id, record.task, record.source, record.split, record.official
            )  # fmt: skip
            assert uti.text_codec.decode(row.text) == record.text
            assert uti.text_codec.decode(row.prompt) == record.prompt
            assert row.meta["licence"] == "CC0-1.0" and len(row.image) == 0
            if record.audio is None:
                assert len(row.audio) == row.frames == 0 and row.audio_sha256 == ""
                continue
            sound = load_audio(world / "data" / record.audio.path)
            span = uti.encode(sound)
            books = uti.space.books("audio")
            codes = row.audio.reshape(row.frames, len(books))
            assert np.array_equal(flatten(codes, books), span.ids)
            assert row.audio_sha256 == record.audio.sha256
            assert row.meta["seconds"] == span.meta["seconds"]


def test_the_seal_says_what_there_is_and_no_date(world: Path) -> None:
    said = json.loads((world / "whole/shards.json").read_text())
    assert said["manifest"] == storage.sha256(world / "data/manifest.jsonl")
    assert said["codec"]["threads"] == 1 and said["codec"]["versions"]["torch"]
    assert set(said["files"]) == {
        "errors.jsonl", "eval/shard-00000.arrow", *(f"train/shard-0000{i}.arrow" for i in range(5))
    }  # fmt: skip
    shards = ShardSet.open(world / "whole")
    for split in shards.splits:
        rows = [shards.sample(split, i) for i in range(shards.len(split))]
        tokens = {n: sum(len(getattr(r, n)) for r in rows) for n in ("text", "prompt", "audio")}
        assert shards.counts[split].tokens == {**tokens, "image": 0}
    everything = b"".join(p.read_bytes() for p in (world / "whole").rglob("*") if p.is_file())
    assert str(world).encode() not in everything
    assert time.strftime("%Y-").encode() not in everything


def test_the_same_command_again_keeps_all(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "whole", tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    found = run(world, tmp_path / "out")
    assert found.kept == found.shards == 6
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}


def test_only_what_is_whole_and_of_these_inputs_is_kept(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, wanted = tmp_path / "out", hashes(world / "whole")
    shutil.copytree(world / "whole", out)
    flipped = out / "train/shard-00002.arrow"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 4
    flipped.write_bytes(data)
    (out / "train/shard-00003.arrow").write_bytes((out / "train/shard-00004.arrow").read_bytes())
    (out / "train/shard-00099.arrow").write_bytes(b"left over")
    (out / "train/.shard-00001.arrow.x_1").write_bytes(b"half")
    (out / ".shards.json.abc").write_bytes(b"half")
    assert run(world, out).kept == 4
    assert hashes(out) == wanted
    # Drafts are swept even where no shard is missing.
    (out / "train/.shard-00001.arrow.x_1").write_bytes(b"half")
    assert run(world, out).kept == 6 and hashes(out) == wanted
    # Another version of anything that may change a code: nothing may be kept.
    (out / "shards.json").unlink()
    monkeypatch.setattr(tokenizing, "_version", lambda package: "another")
    assert run(world, out).kept == 0
    ShardSet.open(out)


def test_groups_and_slices_change_no_row(world: Path, tmp_path: Path) -> None:
    found = run(world, tmp_path / "out", rows_per_shard=7)
    assert found.shards == 7 and found.hash != ""
    one, other = ShardSet.open(world / "whole"), ShardSet.open(tmp_path / "out")
    for split in one.splits:
        for i in range(one.len(split)):
            a, b = one.sample(split, i), other.sample(split, i)
            assert a.id == b.id and np.array_equal(a.audio, b.audio) and a.meta == b.meta


def spoil(folder: Path) -> None:
    (folder / "3.wav").write_bytes(b"no sound")
    (folder / "10.wav").unlink()
    (folder / "11.wav").write_bytes((folder / "12.wav").read_bytes())


def test_bad_media_are_named_with_their_reason_and_left_out(world: Path, tmp_path: Path) -> None:
    manifest = altered(world, tmp_path / "data", spoil)
    found = run(world, tmp_path / "out", manifest=manifest, max_bad=0.1)
    assert {n: (c.rows, c.bad) for n, c in found.counts.items()} == {
        "eval": (3, 1), "train": (34, 2)
    }  # fmt: skip
    lines = (tmp_path / "out/errors.jsonl").read_text().splitlines()
    bad = [json.loads(line) for line in lines]
    assert [(one["id"], one["path"]) for one in bad] == [
        ("r003", "3.wav"), ("r010", "10.wav"), ("r011", "11.wav")
    ]  # fmt: skip
    given = {record.id: record for record in read_manifest(manifest)}
    a, b = given["r011"].audio, given["r012"].audio
    assert a is not None and b is not None
    assert a.sha256 in bad[2]["reason"] and b.sha256 in bad[2]["reason"]
    assert "cannot be read" in bad[1]["reason"] and "SHA-256" in bad[0]["reason"]
    shards = ShardSet.open(tmp_path / "out")
    ids = {shards.sample(s, i).id for s in shards.splits for i in range(shards.len(s))}
    assert ids == set(given) - {"r003", "r010", "r011"}
    # Nothing changed: nothing is tried again. Repaired: exactly those shards are.
    (tmp_path / "out/shards.json").unlink()
    assert run(world, tmp_path / "out", manifest=manifest, max_bad=0.1).kept == 6
    (tmp_path / "out/shards.json").unlink()
    shutil.copy(world / "data/10.wav", tmp_path / "data")
    assert run(world, tmp_path / "out", manifest=manifest, max_bad=0.1).kept == 5
    shutil.copy(world / "data/3.wav", tmp_path / "data")
    shutil.copy(world / "data/11.wav", tmp_path / "data")
    (tmp_path / "out/shards.json").unlink()
    run(world, tmp_path / "out", manifest=manifest)
    assert hashes(tmp_path / "out") == hashes(world / "whole")


def test_sound_too_short_for_a_frame_is_bad_and_its_company_is_not(
    world: Path, tmp_path: Path
) -> None:
    from lumoomni.media.audio import Audio, save_wav

    given = records(tmp_path / "data", 6)
    save_wav(tmp_path / "data/short.wav", Audio(np.ones(9, dtype=np.float32), 16000))
    (tmp_path / "data/noise.wav").write_bytes(b"no sound at all")
    given[1] = replace(given[1], audio=asset(tmp_path / "data/short.wav"))
    given[2] = replace(given[2], audio=asset(tmp_path / "data/noise.wav"))
    write_manifest(tmp_path / "data/m.jsonl", given, source="x")
    run(world, tmp_path / "out", manifest=tmp_path / "data/m.jsonl", max_bad=0.5)
    bad = [json.loads(x) for x in (tmp_path / "out/errors.jsonl").read_text().splitlines()]
    assert [one["id"] for one in bad] == ["r001", "r002"]
    assert "holds no frame" in bad[0]["reason"]
    assert bad[1]["reason"].startswith("noise.wav cannot be read as sound")
    whole, part = ShardSet.open(world / "whole"), ShardSet.open(tmp_path / "out")
    assert np.array_equal(whole.sample("train", 2).audio, part.sample("train", 0).audio)


def test_too_many_bad_records_fail_and_nothing_opens(world: Path, tmp_path: Path) -> None:
    manifest = altered(world, tmp_path / "data", spoil)
    out = tmp_path / "out"
    with pytest.raises(GateFailure, match=r"3 of 40 records cannot be used, at most 5\.0% may"):
        run(world, out, manifest=manifest)
    assert len((out / "errors.jsonl").read_text().splitlines()) == 3
    with pytest.raises(InputError, match="tokenizing is unfinished"):
        ShardSet.open(out)
    # What was made is kept for a run with another bound.
    assert run(world, out, manifest=manifest, max_bad=0.075).kept >= 2
    ShardSet.open(out)
    # A finished folder does not pass for good under a stricter bound.
    with pytest.raises(GateFailure):
        run(world, out, manifest=manifest)
    with pytest.raises(InputError, match="tokenizing is unfinished"):
        ShardSet.open(out)


def test_no_row_at_all_fails(world: Path, tmp_path: Path) -> None:
    given = records(tmp_path / "data", 3)
    write_manifest(tmp_path / "data/m.jsonl", given, source="x")
    for i in range(3):
        (tmp_path / f"data/{i}.wav").unlink()
    with pytest.raises(GateFailure, match="none of 3 records can be used"):
        run(world, tmp_path / "out", manifest=tmp_path / "data/m.jsonl", max_bad=1.0)
    assert len((tmp_path / "out/errors.jsonl").read_text().splitlines()) == 3
    assert not (tmp_path / "out/shards.json").exists()
    write_manifest(tmp_path / "none.jsonl", [], source="x")
    with pytest.raises(InputError, match="holds no record"):
        run(world, tmp_path / "out2", manifest=tmp_path / "none.jsonl")
    assert not (tmp_path / "out2").exists()


def test_finished_shards_of_other_inputs_are_never_overwritten(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(world / "whole", out)
    for options, match in (
        ({"rows_per_shard": 9}, "rows_per_shard"),
        ({"manifest": write_records(tmp_path / "data", 5)}, "another manifest"),
    ):
        with pytest.raises(InputError, match=match):
            run(world, out, **options)
    assert hashes(out) == hashes(world / "whole")
    (out / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match=r"holds mine\.txt, which tokenizing did not make"):
        run(world, out)
    assert (out / "mine.txt").read_text() == "keep"


def test_what_cannot_be_done_is_said_first(world: Path, tmp_path: Path) -> None:
    for options, match in (
        ({"workers": 0}, "0 workers"),
        ({"rows_per_shard": 0}, "0 rows"),
        ({"max_bad": 1.5}, "a share"),
        ({"engine": "rays"}, "did you mean ray"),
        ({"manifest": tmp_path / "none.jsonl"}, "none.jsonl"),
    ):
        with pytest.raises(InputError, match=match):
            run(world, tmp_path / "out", **options)
    given = records(tmp_path / "data", 2)
    write_manifest(tmp_path / "data/m.jsonl", [replace(given[0], split="")], source="x")
    with pytest.raises(InputError, match="r000 has no split"):
        run(world, tmp_path / "out", manifest=tmp_path / "data/m.jsonl")
    pictured = replace(given[0], task="i2t", image=given[0].audio, audio=None)
    write_manifest(tmp_path / "data/m.jsonl", [pictured], source="x")
    with pytest.raises(InputError, match="no image codec"):
        run(world, tmp_path / "out", manifest=tmp_path / "data/m.jsonl")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give a folder"):
        run(world, tmp_path / "file")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/eval").mkdir()
    (tmp_path / "half/eval/shard-00000.arrow").mkdir()  # a folder where a shard belongs
    with pytest.raises(InputError, match="cannot be"):
        run(world, tmp_path / "half")


def test_shards_may_go_to_a_url(world: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    try:
        assert run(world, "memory://tokenized").kept == 0
        assert run(world, "memory://tokenized").kept == 6
        wanted = hashes(world / "whole")
        assert {n: storage.sha256(f"memory://tokenized/{n}") for n in wanted} == wanted
        assert set(storage.listing("memory://tokenized")) == set(wanted)
        assert len(ShardSet.open("memory://tokenized")) == 40
    finally:
        memory.rm("/tokenized", recursive=True)


class Corners:
    """A codec of pictures: the brightness of its corner, with side data."""

    facts = CodecFacts(
        kind="image", name="corners", weights="w", codebooks=1, codebook_size=256, tokens=2,
        side=("height",),
    )  # fmt: skip

    def encode(self, media: np.ndarray, /) -> Coded:
        return Coded(media[0, :2, :1].astype(np.int64), {"height": media.shape[0]})

    def encode_batch(self, media: Any, /) -> list[Coded]:
        return [self.encode(one) for one in media]

    def decode(self, coded: Coded, /) -> Any:
        raise NotImplementedError


def test_pictures_and_side_data(world: Path, tmp_path: Path) -> None:
    sounding = UTI.load(world / "space")
    speech = sounding.space.codecs[0]
    space = new_space(sounding.space.ranges[0].size, sounding.space.tokenizer,
                      (Corners.facts, speech))  # fmt: skip
    uti = UTI(space, sounding.text_codec, {"image": Corners(), "audio": sounding.codecs["audio"]})
    picture = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    save_png(tmp_path / "p.png", picture)
    given = records(tmp_path / "data", 1)[0]
    shutil.copy(tmp_path / "p.png", tmp_path / "data")
    both = replace(given, image=asset(tmp_path / "p.png"))
    alone = Record(id="q", source="s", task="t2i", text="x", image=both.image, split="train")
    with tokenize_run.exact_threads():
        job = Job("train/shard-00000.arrow", str(tmp_path / "data/m"), (alone, both), space.abi,
                  tokenizing.policy())  # fmt: skip
        done: list[int] = []
        data = tokenize_shard(uti, job, done.append)
    (tmp_path / "x.arrow").write_bytes(data)
    shard = tokenize_run.Shard(tokenize_run.pyarrow().py_buffer(data), "x")
    first, second = shard.sample(0), shard.sample(1)
    assert first.image.tolist() == [0, 3] and first.meta == {"size": [4, 5], "side": {"height": 4}}
    assert second.image.tolist() == [0, 3] and second.frames > 0 and len(second.audio) > 0
    assert second.meta["size"] == [4, 5] and second.meta["seconds"] > 0 and done == [2]


def test_a_worker_that_would_encode_otherwise_refuses(world: Path) -> None:
    uti = UTI.load(world / "space")
    with tokenize_run.exact_threads():
        how = tokenizing.policy()
        job = Job("train/shard-00000.arrow", "m", (), uti.space.abi, how)
        with pytest.raises(InputError, match="is to be made in token space 000"):
            tokenize_shard(uti, replace(job, abi="0" * 64), print)
        other = {**how, "versions": {**how["versions"], "torch": "1.0"}}
        with pytest.raises(InputError, match=r"otherwise than asked \(versions .*1\.0"):
            tokenize_shard(uti, replace(job, policy=other), print)
        assert job.inputs != replace(job, policy=other).inputs != replace(job, abi="0").inputs
    threads = torch.get_num_threads()
    with tokenize_run.exact_threads():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads


def test_a_failed_write_keeps_what_was_there(tmp_path: Path) -> None:
    assert runtime.atomic_write_bytes is atomic_write_bytes
    storage.write_bytes(tmp_path / "x", b"old")
    (tmp_path / "x.d").mkdir()
    storage.write_bytes(tmp_path / "x", b"new")
    assert storage.read_bytes(f"file://{tmp_path}/x") == b"new"
    assert storage.listing(tmp_path) == {"x": 3} and storage.exists(tmp_path / "x.d")
