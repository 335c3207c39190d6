"""Builders: small copies of published data sets, in their exact formats, to manifests."""

import json
from pathlib import Path

import pytest

from lumoomni.data.asset_split import asset_split
from lumoomni.errors import InputError
from tests.data.manifest_files import (
    AUDIOCAPS_COLUMNS,
    CLOTHO_COLUMNS,
    built,
    captions,
    png,
    table,
    wav,
)


def test_clotho(tmp_path: Path) -> None:
    folder = tmp_path / "clotho"
    for i, split in enumerate(("development", "validation", "evaluation")):
        names = [f"{split} {j}, rain.wav" for j in range(20)]
        for j, name in enumerate(names):
            wav(folder / split / name, 20 * i + j)
        path = folder / f"clotho_captions_{split}.csv"
        table(path, CLOTHO_COLUMNS, [captions(name) for name in names])
    records, report = built("clotho", folder, eval_share=0.3)
    assert (len(records), report.records, report.assets, report.defects) == (300, 300, 60, 0)
    assert report.officials == {"development": 100, "evaluation": 100, "validation": 100}
    first = records[0]
    assert first.id == "clotho:development:development 0, rain.wav:1:a2t"
    assert first.text == "development 0, rain.wav, said 1" and first.task == "a2t"
    assert first.audio and Path(first.audio.path).name == "development 0, rain.wav"
    for record in records:
        assert record.audio
        wanted = asset_split(record.audio.sha256, 0.3)
        assert record.split == (wanted if record.official == "development" else "eval")
    # All captions of a clip stand on one side, and both sides have some.
    sides = {(r.audio.path, r.split) for r in records if r.audio and r.official == "development"}
    assert len(sides) == 20 and {side for _, side in sides} == {"train", "eval"}
    one, _ = built("clotho", folder / "clotho_captions_validation.csv")
    assert {r.official for r in one} == {"validation"} and {r.split for r in one} == {"eval"}
    # Sounds in one folder, elsewhere.
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in folder.glob("evaluation/*.wav"):
        path.rename(flat / path.name)
    moved, _ = built("clotho", folder / "clotho_captions_evaluation.csv", flat)
    assert len(moved) == 100


def test_a_renamed_copy_stands_on_the_same_side(tmp_path: Path) -> None:
    lines = []
    for i in range(40):
        for name in (f"a{i}.wav", f"b{i}.wav"):
            wav(tmp_path / "c" / "development" / name, i)
            lines.append(captions(name))
    table(tmp_path / "c" / "clotho_captions_development.csv", CLOTHO_COLUMNS, lines)
    records, report = built("clotho", tmp_path / "c", eval_share=0.5)
    side = {r.audio.path.rpartition("/")[2]: r.split for r in records if r.audio}
    assert all(side[f"a{i}.wav"] == side[f"b{i}.wav"] for i in range(40))
    assert set(side.values()) == {"train", "eval"} and report.assets == 80


def test_a_file_in_two_official_splits_is_named_and_held_out(tmp_path: Path) -> None:
    for split, value in (("development", 1), ("evaluation", 1)):
        wav(tmp_path / "c" / split / f"{split}.wav", value)
        path = tmp_path / "c" / f"clotho_captions_{split}.csv"
        table(path, CLOTHO_COLUMNS, [captions(f"{split}.wav")])
    records, report = built("clotho", tmp_path / "c")
    assert asset_split(records[0].audio.sha256) == "train"  # type: ignore[union-attr]
    assert {r.split for r in records} == {"eval"} and report.splits == {"train": 0, "eval": 10}
    assert report.leaks == 1 and "development and evaluation" in report.leaks_named[0]
    assert "clotho:development:development.wav:1" in report.leaks_named[0]


def audiocaps(folder: Path, lines: list[list[str]], split: str = "train") -> Path:
    table(folder / f"{split}.csv", AUDIOCAPS_COLUMNS, lines)
    return folder


def test_audiocaps_finds_files_by_their_whole_name(tmp_path: Path) -> None:
    folder = audiocaps(
        tmp_path / "a",
        [
            ["91", "rqfQRErjfk8", "170", "A large crowd cheers, and claps"],
            ["91918", "8s3fmsP0jwA", "30", "Wind blows"],
            ["7", "-abcdefghij", "0", "By its video"],
            ["8", "_bcdefghijk", "20", "By Y and its video"],
            ["9", "cdefghijklm", "40", "By video and time"],
            ["10", "defghijklmn", "50", "By video, start and end"],
        ],
    )
    for i, name in enumerate(
        ("91918", "-abcdefghij", "Y_bcdefghijk", "cdefghijklm_40", "defghijklmn_50_60")
    ):
        wav(folder / "train" / f"{name}.wav", i)
    audiocaps(folder, [["97151", "vfY_TJq7n_U", "130", "Rustling"]], "val")
    wav(folder / "val" / "97151.flac", 50)
    audiocaps(folder, [["103549", "7fmOlUlwoNg", "20", "Constant rattling"]], "test")
    wav(folder / "test" / "103549.wav", 51)
    records, report = built("audiocaps", folder, most_defects=0.2)
    files = {r.id: Path(r.audio.path).name for r in records if r.audio}
    assert files == {
        "audiocaps:91918:a2t": "91918.wav",
        "audiocaps:7:a2t": "-abcdefghij.wav",
        "audiocaps:8:a2t": "Y_bcdefghijk.wav",
        "audiocaps:9:a2t": "cdefghijklm_40.wav",
        "audiocaps:10:a2t": "defghijklmn_50_60.wav",
        "audiocaps:97151:a2t": "97151.flac",
        "audiocaps:103549:a2t": "103549.wav",
    }
    assert {r.official: r.split for r in records if r.official != "train"} == {
        "val": "eval",
        "test": "eval",
    }
    assert report.reasons == {"there is no such file": 1}
    assert "train.csv:2" in report.defects_named[0] and "91 or rqf" in report.defects_named[0]
    wav(folder / "train" / "8s3fmsP0jwA.wav", 60)
    _, report = built("audiocaps", folder, most_defects=0.3)
    assert report.reasons["more than one file has the name"] == 1


def test_many_audiocaps_are_not_compared_with_each_other(tmp_path: Path, monkeypatch) -> None:
    """Each folder is walked once, however many lines look for a file."""
    from lumoomni.data import manifest_drafts

    walks = []
    real = manifest_drafts.walk
    monkeypatch.setattr(
        manifest_drafts, "walk", lambda folder: walks.append(folder) or real(folder)
    )
    lines = [[str(i), f"video{i:06}", "0", f"caption {i}"] for i in range(300)]
    folder = audiocaps(tmp_path / "a", lines[:200])
    audiocaps(folder, lines[200:], "test")
    for i in range(300):
        wav(folder / f"{i}.wav", i)
    records, _ = built("audiocaps", folder)
    assert len(records) == 300 and walks == [folder]


def test_wavcaps(tmp_path: Path) -> None:
    folder = tmp_path / "AudioSet_SL"
    items = [
        {"id": f"Y{i:011}.wav", "caption": f"Sound {i} is heard.", "duration": 10.0}
        for i in range(50)
    ]
    items += [
        {"id": "180913", "caption": "A number.", "duration": 1.5},
        {"id": 180914, "caption": "A number as such.", "duration": 1.5},
        {"id": "Y00.wav", "caption": None, "duration": 10.0},
        {"caption": "nameless"},
    ]
    folder.mkdir()
    path = folder / "as_final.json"
    path.write_text(json.dumps({"num_captions_per_audio": 1, "data": items}))
    for i, name in enumerate([*(f"Y{i:011}" for i in range(50)), "180913", "180914"]):
        wav(tmp_path / "flac" / f"{name}.flac", i)
    records, report = built("wavcaps", path, tmp_path / "flac", most_defects=0.1)
    assert len(records) == 52 and records[0].id == "wavcaps:as_final:180913:a2t"
    assert report.reasons == {"no id": 1, "the caption is no text": 1}
    assert {r.official for r in records} == {""}
    path.write_text("[]")
    with pytest.raises(InputError, match='no list "data"'):
        built("wavcaps", path)


def test_llava_pretrain(tmp_path: Path) -> None:
    items: list[dict] = []
    for i in range(30):
        image = f"{i % 3:05}/{i:09}.jpg"
        png(tmp_path / "images" / image, i)
        said = [
            {"from": "human", "value": "Provide a brief description.\n<image>"},
            {"from": "gpt", "value": f"picture {i}"},
        ]
        items.append({"id": f"{i:09}", "image": image, "conversations": said})
    more = [*items[0]["conversations"], {"from": "human", "value": "And?"}]
    more.append({"from": "gpt", "value": "No more."})
    items.append({"id": "talk", "image": items[0]["image"], "conversations": more})
    path = tmp_path / "blip_laion_cc_sbu_558k.json"
    path.write_text(json.dumps(items))
    records, report = built("llava_pretrain", path, tmp_path / "images", both_ways=True)
    assert (len(records), report.pairs, report.defects) == (60, 31, 1)
    assert report.reasons == {"more than one turn before the answer": 1}
    there, back = records[0], records[1]
    assert (there.id, back.id) == ("llava_pretrain:0000000:i2t", "llava_pretrain:0000000:t2i")
    assert (there.prompt, back.prompt) == ("Provide a brief description.", "")
    assert (there.text, there.image, there.split) == (back.text, back.image, back.split)
    assert report.tasks == {"i2t": 30, "t2i": 30}


def test_coco(tmp_path: Path) -> None:
    folder = tmp_path / "coco"
    for i, split in enumerate(("train2017", "val2017")):
        png(folder / split / f"{i:012}.jpg", i)
        notes = [
            {"image_id": i, "id": 48 + k, "caption": f"Caption {k} of {split}. "} for k in range(5)
        ]
        data = {
            "info": {},
            "licenses": [],
            "images": [{"license": 3, "file_name": f"{i:012}.jpg", "id": i}],
            "annotations": notes,
        }
        path = folder / "annotations" / f"captions_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(data))
    records, report = built("coco", folder)
    assert report.officials == {"train2017": 5, "val2017": 5}
    assert {r.split for r in records if r.official == "val2017"} == {"eval"}
    assert records[0].text == "Caption 0 of train2017." and records[0].task == "i2t"
    one, _ = built("coco", folder / "annotations" / "captions_train2017.json")
    assert [r.id for r in one] == [f"coco:train2017:{i:07}:i2t" for i in range(5)]
    with pytest.raises(InputError, match="keep it as published"):
        built("coco", folder / "train2017")


def test_ljspeech(tmp_path: Path) -> None:
    lines = [f"LJ001-{i:04}|In 18{i:02},|In eighteen {i}," for i in range(30)]
    (tmp_path / "lj").mkdir()
    (tmp_path / "lj" / "metadata.csv").write_text("\n".join(lines))
    for i in range(30):
        wav(tmp_path / "lj" / "wavs" / f"LJ001-{i:04}.wav", i)
    records, _ = built("ljspeech", tmp_path / "lj", licence="public domain")
    assert [r.id for r in records] == [f"ljspeech:LJ001-{i:04}:a2t" for i in range(30)]
    assert records[3].text == "In eighteen 3," and records[3].licence == "public domain"


def test_librispeech_keeps_its_splits(tmp_path: Path) -> None:
    root = tmp_path / "LibriSpeech"
    splits = ("train-clean-100", "dev-clean", "test-clean")
    for i, split in enumerate(splits):
        chapter = root / split / "1272" / f"12813{i}"
        for j in range(10):
            wav(chapter / f"1272-12813{i}-{j:04}.flac", 10 * i + j)
        lines = [f"1272-12813{i}-{j:04} MISTER QUILTER {j}" for j in range(10)]
        (chapter / f"1272-12813{i}.trans.txt").write_text("\n".join(lines) + "\n")
    records, report = built("librispeech", root)
    assert report.officials == {"dev-clean": 10, "test-clean": 10, "train-clean-100": 10}
    assert all(r.split == "eval" for r in records if r.official != "train-clean-100")
    assert any(r.split == "train" for r in records)
    assert records[0].id == "librispeech:1272-128130-0000:a2t"
    assert records[0].text == "MISTER QUILTER 0"
    one, _ = built("librispeech", root / "dev-clean")
    assert {r.official for r in one} == {"dev-clean"} and {r.split for r in one} == {"eval"}
    below, _ = built("librispeech", root / "dev-clean" / "1272")
    assert {r.official for r in below} == {"dev-clean"}
    (root / "dev-clean").rename(root / "dev-clear")
    for part in ("", "dev-clear", "dev-clear/1272", "dev-clear/1272/128131"):
        with pytest.raises(InputError, match="split 'dev-clear'; did you mean dev-clean"):
            built("librispeech", root / part)
    # What was unpacked into another split's folder is of its own.
    (root / "dev-clear").rename(root / "train-clean-100" / "dev-clean")
    (root / "test-clean").rename(tmp_path / "test-clean")
    _, report = built("librispeech", root / "train-clean-100")
    assert report.officials == {"dev-clean": 10, "train-clean-100": 10}


def test_a_plain_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    png(folder / "a.png", 1)
    (folder / "a.txt").write_text("a picture\n")
    wav(folder / "below" / "a.b.wav", 2)
    (folder / "below" / "a.b.txt").write_text("a sound")
    png(folder / "silent.png", 3)
    (folder / "blind.txt").write_text("nothing to see")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    png(folder / "latin.png", 4)
    records, report = built("folder", folder, most_defects=0.6)
    assert [(r.id, r.text) for r in records] == [
        ("folder:a.png:i2t", "a picture"),
        ("folder:below/a.b.wav:a2t", "a sound"),
    ]
    assert report.reasons == {
        "no picture or sound beside it": 1,
        "the text cannot be read": 1,
        "no text file beside it": 1,
    }
