"""What a manifest leaves out, limits and refuses, and that it says so."""

from pathlib import Path

import pytest

from lumoomni.data.manifest import media_path, read_header, read_manifest
from lumoomni.data.manifest_builders import (
    LAYOUTS,
    ManifestConfig,
    build_manifest,
)
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


def test_defects_are_counted_and_named_and_too_many_stop_it(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    names = [f"{i:02}.wav" for i in range(20)]
    lines = [captions(name) for name in names]
    lines[2][3] = " "
    lines.append(["a.wav", "one caption"])
    lines.append(captions(names[0]))
    lines.append(captions(""))
    for i, name in enumerate(names[2:], 2):
        wav(folder / "development" / name, i)
    (folder / "development" / "01.wav").write_text("no sound")
    table(folder / "clotho_captions_development.csv", CLOTHO_COLUMNS, lines)
    out = tmp_path / "m.jsonl"
    report = build_manifest("clotho", folder, out)
    assert not report.usable and not out.exists()
    assert report.reasons == {
        "there is no such file": 5,
        "has no sound header that can be read": 5,
        "the id stands twice": 5,
        "empty caption": 1,
        "another number of fields": 1,
        "no file is named": 1,
    }
    assert (report.pairs, report.records, report.defects) == (107, 89, 18)
    written = (tmp_path / "m.jsonl.defects.txt").read_text()
    assert written.count("\n") == 18
    assert "development.csv:4 caption_3: empty caption" in written
    assert "first at" in written and "01.wav" in written
    report = build_manifest("clotho", folder, out, config=ManifestConfig(most_defects=0.17))
    assert report.usable and len(list(read_manifest(out))) == 89


def test_a_share_of_defects_at_the_bound_is_borne(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    for i in range(20):
        png(folder / f"{i}.png", i)
        (folder / f"{i}.txt").write_text("" if i == 0 else "said")
    records, report = built("folder", folder)
    assert len(records) == 19 and report.defects == 1
    (folder / "1.txt").write_text("")
    assert not build_manifest("folder", folder, tmp_path / "m.jsonl").usable


def test_the_list_of_defects_is_that_of_the_last_run(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    png(folder / "a.png", 1)
    assert not build_manifest("folder", folder, tmp_path / "m.jsonl").usable
    assert (tmp_path / "m.jsonl.defects.txt").exists()
    (folder / "a.txt").write_text("said")
    assert build_manifest("folder", folder, tmp_path / "m.jsonl").usable
    assert not (tmp_path / "m.jsonl.defects.txt").exists()


def test_media_below_the_manifest_move_with_it(tmp_path: Path, monkeypatch) -> None:
    png(tmp_path / "here" / "f" / "a.png", 1)
    (tmp_path / "here" / "f" / "a.txt").write_text("said")
    monkeypatch.chdir(tmp_path / "here")
    build_manifest("folder", Path("f"), Path("m.jsonl"))
    build_manifest("folder", Path("f"), tmp_path / "far" / "m.jsonl")
    (near,), (far,) = read_manifest(Path("m.jsonl")), read_manifest(tmp_path / "far" / "m.jsonl")
    assert near.image and near.image.path == "f/a.png"
    assert far.image and far.image.path == str(tmp_path / "here" / "f" / "a.png")
    (tmp_path / "here").rename(tmp_path / "there")
    assert Path(media_path(tmp_path / "there" / "m.jsonl", near.image)).is_file()


def test_a_limit_is_said_and_nothing_else_limits(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    for i in range(30):
        png(folder / f"{i:02}.png", i)
        (folder / f"{i:02}.txt").write_text("said")
    records, report = built("folder", folder, limit=7)
    assert [r.id for r in records] == [f"folder:{i:02}.png:i2t" for i in range(7)]
    assert (report.listed, report.pairs) == (30, 7)
    assert read_header(tmp_path / "out" / "m.jsonl").made_with["limit"] == 7
    before = (tmp_path / "out" / "m.jsonl").read_bytes()
    built("folder", folder, limit=7)
    assert (tmp_path / "out" / "m.jsonl").read_bytes() == before
    assert len(built("folder", folder)[0]) == 30


@pytest.mark.parametrize(
    ("layout", "words"),
    [("clothe", "did you mean clotho"), ("clotho", "keep it as published"), ("folder", "0 pairs")],
)
def test_what_is_no_listing_is_refused(tmp_path: Path, layout: str, words: str) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match=words):
        built(layout, tmp_path / "x")


def test_bad_listings_and_settings_are_refused(tmp_path: Path) -> None:
    for layout in LAYOUTS:
        with pytest.raises(InputError, match="there is no"):
            built(layout, tmp_path / "none")
    table(tmp_path / "train.csv", ["audiocap_id", "youtube_id", "caption"], [])
    with pytest.raises(InputError, match="start_time is not there"):
        built("audiocaps", tmp_path / "train.csv")
    (tmp_path / "train.csv").write_text(",".join(AUDIOCAPS_COLUMNS) + '\n1,2,3,"open\n')
    with pytest.raises(InputError, match="not valid CSV"):
        built("audiocaps", tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        built("audiocaps", tmp_path, tmp_path / "none")
    for settings in ({"limit": -1}, {"most_defects": 2.0}, {"eval_share": 0.0001}):
        with pytest.raises(InputError, match=next(iter(settings))):
            ManifestConfig(**settings)
