"""The micro-world as files: true texts, the same files every time, held-out splits held out."""

from pathlib import Path

import pytest
import soundfile

from lumoomni.data.manifest import read_manifest
from lumoomni.data.manifest_builders import ManifestConfig, build_manifest
from lumoomni.data.manifest_world import WorldConfig
from lumoomni.data.world.language import matches
from lumoomni.data.world.scene import make_scene
from lumoomni.data.world.sentences import is_kept
from lumoomni.data.world.sounds import make_sound
from lumoomni.errors import InputError
from lumoomni.media.image import load_image

SMALL = WorldConfig(seed=3, count=6, held=2, pixels=32)


def make(folder: Path, world: WorldConfig = SMALL, **settings) -> bytes:
    config = ManifestConfig(world=world, **settings)
    report = build_manifest("world", folder / "media", folder / "m.jsonl", config=config)
    assert report.usable and report.defects == 0
    return (folder / "m.jsonl").read_bytes()


def test_each_task_both_ways(tmp_path: Path) -> None:
    make(tmp_path, both_ways=True)
    records = list(read_manifest(tmp_path / "m.jsonl"))
    pairs = {record.id.rpartition(":")[0] for record in records}
    kinds = [tuple(pair.split(":")[1:3]) for pair in pairs]
    for name in ("scenes", "sounds", "speech"):
        assert (kinds.count((name, "train")), kinds.count((name, "seen"))) == (6, 2)
    assert kinds.count(("scenes", "unseen")) == kinds.count(("sounds", "unseen")) == 2
    assert kinds.count(("speech", "unseen")) == 0
    tasks = {(r.id.split(":")[1], r.task) for r in records}
    assert tasks == {
        ("scenes", "i2t"),
        ("scenes", "t2i"),
        ("sounds", "a2t"),
        ("sounds", "t2a"),
        ("speech", "a2t"),
        ("speech", "t2a"),
    }
    assert all(r.split == "eval" for r in records if r.official != "train")
    assert any(r.split == "train" for r in records)


def test_sketches_are_drawn_and_scenes_are_read(tmp_path: Path) -> None:
    world = WorldConfig(seed=3, count=6, held=2, pixels=32, sketches=True)
    make(tmp_path, world, both_ways=True)
    records = list(read_manifest(tmp_path / "m.jsonl"))
    tasks = {(r.id.split(":")[1], r.task) for r in records if r.image}
    assert tasks == {("scenes", "i2t"), ("sketches", "t2i")}
    assert sum(r.task == "t2i" for r in records) == sum(r.task == "i2t" for r in records) == 10
    assert {r.task for r in records if r.audio} == {"a2t", "t2a"}


def test_cues_are_made_and_sounds_are_heard(tmp_path: Path) -> None:
    world = WorldConfig(seed=3, count=6, held=2, pixels=32, cues=True)
    make(tmp_path, world, both_ways=True)
    records = list(read_manifest(tmp_path / "m.jsonl"))
    tasks = {(r.id.split(":")[1], r.task) for r in records if r.audio}
    both = {("speech", "a2t"), ("speech", "t2a")}
    assert tasks == {("sounds", "a2t"), ("cues", "t2a"), *both}
    assert {r.task for r in records if r.image} == {"i2t", "t2i"}


def test_texts_are_true(tmp_path: Path) -> None:
    make(tmp_path)
    for record in read_manifest(tmp_path / "m.jsonl"):
        _, name, split, index, _ = record.id.split(":")
        path = tmp_path / (record.image or record.audio).path  # type: ignore[union-attr]
        if name == "scenes":
            assert load_image(path).shape == (32, 32, 3)
            assert matches(make_scene(3, split, int(index)), record.text)
            continue
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
        if name == "sounds":
            sound = make_sound(3, split, int(index))
            assert record.text == sound.caption and info.frames == len(sound.samples)
        else:
            assert is_kept(record.text) == (split != "train")
            assert 0.1 < info.duration / len(record.text.split()) < 1


def test_the_seed_decides_all(tmp_path: Path) -> None:
    first = make(tmp_path / "a")
    assert make(tmp_path / "b") == first
    assert make(tmp_path / "c", WorldConfig(seed=4, count=6, held=2, pixels=32)) != first


def test_many_voices(tmp_path: Path) -> None:
    world = WorldConfig(seed=3, count=2, held=1, pixels=32, voices=True)
    make(tmp_path, world)
    spoken = [r for r in read_manifest(tmp_path / "m.jsonl") if ":speech:" in r.id]
    assert [r.official for r in spoken] == ["seen", "train", "train", "unseen"]
    make(tmp_path / "one", WorldConfig(seed=3, count=2, held=1, pixels=32))
    narrated = [r for r in read_manifest(tmp_path / "one" / "m.jsonl") if ":speech:" in r.id]
    assert [r.text for r in narrated] == [r.text for r in spoken[:3]]
    assert all(a.audio != b.audio for a, b in zip(narrated, spoken, strict=False))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"held": -1}, {"pixels": 4}])
def test_worlds_that_cannot_be_made_are_refused(wrong) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        WorldConfig(**wrong)
