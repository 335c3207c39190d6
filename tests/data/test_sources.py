"""Sources: the world and real data by one interface, split by asset, no row lost in silence."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from lumoomni.data import sources
from lumoomni.data.rows import Row
from lumoomni.data.sample import PictureItem
from lumoomni.data.sources import (
    SpeechRows,
    TextRows,
    no_longer,
    open_pictures,
    open_speech,
    open_text,
    split_by_asset,
)
from lumoomni.errors import InputError


def tone(path: Path, seconds: float = 0.05, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.sin(np.arange(int(seconds * rate)) / 20) * 0.3
    soundfile.write(path, samples, rate)
    return path


def listing(folder: Path, names: list[str]) -> str:
    """A CSV of made sounds, as a spec."""
    for name in set(names):
        tone(folder / name)
    lines = ["wav,text"] + [f"{name},words {i}" for i, name in enumerate(names)]
    (folder / "list.csv").write_text("\n".join(lines))
    return f"csv:{folder / 'list.csv'}"


def speech(spec: str, seed: int = 0) -> SpeechRows:
    source = open_speech(spec, seed)
    assert isinstance(source, SpeechRows)
    return source


def test_all_rows_of_one_file_stand_on_one_side(tmp_path: Path) -> None:
    names = [f"{i % 40}.wav" for i in range(100)] + ["./3.wav", "x/../7.wav"]
    (tmp_path / "x").mkdir()
    rows = speech(listing(tmp_path, names)).rows
    train, held = {row.asset for row in rows.train}, {row.asset for row in rows.held}
    assert len(rows.train) + len(rows.held) == 102 and len(train | held) == 40
    assert held and not train & held


def test_about_a_twentieth_is_held_out_and_stays_held_out() -> None:
    rows = [Row("text", f"{i}", f"asset {i}") for i in range(4000)]
    train, held = split_by_asset(rows)
    assert 140 < len(held) < 260 and len(train) + len(held) == 4000
    assert {row.asset for row in split_by_asset(rows[:2000])[1]} <= {row.asset for row in held}
    for few in ([rows[0], rows[1]], held[:2]):
        assert [len(side) for side in split_by_asset(few)] == [1, 1]


def test_rows_that_share_a_picture_stand_on_one_side_also_by_way_of_others() -> None:
    """Chains a-b, b-c, c-d in any order of rows; rows of one picture keep the side they had."""
    pairs = [(f"{i} {k}", f"{i} {k + 1}") for k in (2, 0, 1) for i in range(300)]
    rows = [Row("text", f"{pair}", pair[0], shared=pair[1:]) for pair in pairs]
    alone = [Row("text", f"alone {i}", f"alone {i}") for i in range(900)]
    sides = split_by_asset([*rows, *alone])
    seen = [
        {asset.split()[0] for row in side for asset in row.assets} - {"alone"} for side in sides
    ]
    assert len(seen[0] & seen[1]) == 0 and len(seen[0] | seen[1]) == 300 and 5 < len(seen[1]) < 30
    kept = [[row for row in side if not row.shared] for side in sides]
    assert kept == list(split_by_asset(alone))
    # The same groups told in another order, and each pair the other way round.
    turned = [replace(row, asset=row.shared[0], shared=(row.asset,)) for row in reversed(rows)]
    again = split_by_asset([*turned, *alone])
    assert {row.where for row in again[1]} == {row.where for row in sides[1]}


def test_moved_data_is_split_alike(tmp_path: Path) -> None:
    spec = listing(tmp_path / "one", [f"{i}.wav" for i in range(30)])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    here, there = speech(spec).rows, speech(f"csv:{tmp_path / 'two' / 'list.csv'}").rows
    assert [row.asset for row in here.held] == [row.asset for row in there.held]


def test_every_pass_sees_every_row_once_in_a_new_order(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(f"line {i}" for i in range(60)))
    spec = f"txt:{tmp_path / 't.txt'}"
    source = open_text(spec, 0)
    size = source.size("train")
    assert size is not None and size < 60
    passes = [[source.item("train", k * size + i) for i in range(size)] for k in range(3)]
    said = [[item.turns[-1][1] for item in one] for one in passes]
    assert all(len(set(one)) == size for one in said)
    assert said[0] != said[1] != said[2]
    assert open_text(spec, 0).item("train", size + 5) == passes[1][5]
    assert [open_text(spec, 1).item("train", i) for i in range(size)] != passes[0]
    held = source.size("seen")
    assert held is not None and source.item("seen", 0) == source.item("unseen", held)
    assert source.item("other", 0).turns[0][1] not in said[0]
    with pytest.raises(InputError, match="unknown split 'trian'"):
        source.item("trian", 0)
    with pytest.raises(InputError, match="unknown split 'trian'"):
        source.size("trian")


def test_an_item_of_a_large_set_costs_no_pass_over_it() -> None:
    rows = [Row("text", f"{i}", f"{i}") for i in range(50_000)]
    train, held = split_by_asset(rows)
    made = sources.Rows(tuple(train), tuple(held), 0, ())
    sources._order.cache_clear()
    for i in range(1000):
        made.row("train", i)
    assert sources._order.cache_info().misses == 1


def test_a_few_unusable_rows_are_named_and_many_stop(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = listing(tmp_path, [f"{i}.wav" for i in range(60)])
    assert speech(spec).problems == () and capfd.readouterr().err == ""
    (tmp_path / "7.wav").unlink()
    (tmp_path / "8.wav").write_bytes(b"")
    (tmp_path / "9.wav").write_text("this is no sound at all")
    source = speech(spec)
    assert len(source.problems) == 3 and len(source.rows.train) + len(source.rows.held) == 57
    for line, words in zip(
        source.problems,
        ("7.wav: there is no such", "8.wav: the file is empty", "9.wav: has no"),
        strict=True,
    ):
        assert words in line and "list.csv:" in line
    assert "left out 3 of 60 rows" in capfd.readouterr().err
    (tmp_path / "10.wav").unlink()
    with pytest.raises(InputError, match=r"4 of 60 rows .*7.wav.*8.wav.*9.wav.*data check csv"):
        open_speech(spec, 0)


def test_a_file_with_a_good_header_and_bad_sound_is_named(tmp_path: Path) -> None:
    spec = listing(tmp_path, ["a.wav", "b.wav"])
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.full(800, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"[ab].wav holds 800 samples that are NaN"):
        open_speech(spec, 0)
    source = open_speech(f"{spec}?bodies=trust", 0)
    with pytest.raises(InputError, match=r"[ab].wav holds 800 samples that are NaN"):
        source.item("train", 0)


def test_one_asset_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 usable rows give 3 to train on and 0 to measure on"):
        open_speech(listing(tmp_path, ["a.wav"] * 3), 0)


def test_speech_is_resampled_and_named(tmp_path: Path) -> None:
    for i in range(4):
        tone(tmp_path / "wavs" / f"LJ-{i}.wav", 0.5, rate=22050)
    lines = "".join(f"LJ-{i}|Line {i}|line number {i}\n" for i in range(4))
    (tmp_path / "metadata.csv").write_text(lines)
    item = open_speech(f"ljspeech:{tmp_path}", 0).item("train", 0)
    assert item.samples.dtype == np.float32 and len(item.samples) == 8000
    assert item.words is None and item.text.startswith("line number") and "metadata" in item.name
    assert len(open_speech(f"ljspeech:{tmp_path}", 0, rate=8000).item("train", 0).samples) == 4000


def test_text_kinds(tmp_path: Path) -> None:
    lines = [f"what is {i}?\tnumber {i}" for i in range(20)] + ["a plain line", "another line"]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    source = open_text(f"txt:{tmp_path / 't.txt'}", 0)
    assert isinstance(source, TextRows)
    found = {item.kind: item for i in range(22) if (item := source.item("train", i))}
    pair, line = found["pair"], found["line"]
    assert [role for role, _ in pair.turns] == ["user", "assistant"]
    assert pair.accepted == (pair.turns[-1][1],) and line.accepted == ()
    assert len(line.turns) == 1 and line.turns[0][0] == "assistant"


def test_pictures_come_from_the_image_root_at_one_size(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    items = []
    for i in range(20):
        Image.new("RGB", (40, 30), (i * 10, 0, 0)).save(tmp_path / "root" / f"{i}.png")
        items.append({"image": f"{i}.png", "caption": f"shade {i}"})
    (tmp_path / "c.json").write_text(json.dumps(items))
    source = open_pictures(f"json:{tmp_path / 'c.json'}?image_root={tmp_path / 'root'}", 0, 16)
    item = source.item("seen", 0)
    shade = int(item.caption.split()[1])
    assert item.image.shape == (16, 16, 3) and (item.image[..., 0] == shade * 10).all()
    assert item.scene is None
    (tmp_path / "root" / "3.png").write_bytes(b"no picture")
    (tmp_path / "root" / "4.png").unlink()
    with pytest.raises(InputError, match=r"2 of 20 rows.*3.png: has no picture header"):
        open_pictures(f"json:{tmp_path / 'c.json'}?image_root={tmp_path / 'root'}", 0, 16)


def told(item: PictureItem) -> dict[str, object]:
    """All but the pictures, which have no single truth when they are compared."""
    return {name: value for name, value in vars(item).items() if name not in ("image", "others")}


def test_outlines_say_what_items_say_and_open_nothing(tmp_path: Path) -> None:
    items = []
    for i in range(12):
        Image.new("RGB", (6, 5), (i * 10, 0, 0)).save(tmp_path / f"{i}.png")
        names = [f"{i}.png"] if i % 2 else [f"{i}.png", f"{i}.png"]
        asked = " and ".join("<image>" for _ in names)
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": f"shade {i}"}]
        items.append({"id": i, "image": names, "conversations": turns})
    (tmp_path / "l.json").write_text(json.dumps(items))
    source = open_pictures(f"llava:{tmp_path / 'l.json'}", 0, 16)
    made = [source.item("train", i) for i in range(12)]
    prints = [source.fingerprints("train", i) for i in range(12)]
    for path in tmp_path.glob("*.png"):
        path.unlink()
    for index, item in enumerate(made):
        outline = source.outline("train", index)
        pictures, empty = (item.image, *item.others), (outline.image, *outline.others)
        assert [x.shape for x in empty] == [(0, 0, 3)] * len(pictures)
        assert told(item) == told(outline)
        assert len(prints[index]) == len(pictures)
    assert {len((item.image, *item.others)) for item in made} == {1, 2}
    shades = {one: int(item.image[0, 0, 0]) for item, (one, *_) in zip(made, prints, strict=True)}
    assert len(set(shades.values())) == len(shades) > 5


def test_a_fingerprint_tells_the_size_too(tmp_path: Path) -> None:
    for i in range(2):
        Image.new("RGB", (6, 5), (i, 0, 0)).save(tmp_path / f"{i}.png")
    items = [{"image": f"{i}.png", "caption": "x"} for i in range(2)]
    (tmp_path / "c.json").write_text(json.dumps(items))
    spec = f"json:{tmp_path / 'c.json'}"
    small, large = (open_pictures(spec, 0, size).fingerprints("train", 0) for size in (16, 32))
    assert small != large and small == open_pictures(spec, 0, 16).fingerprints("train", 0)


def test_the_world_outlines_its_items_without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_pictures("world", 3, 16)
    places = [("train", i) for i in range(40)] + [("seen", i) for i in range(5)]
    made = [source.item(*place) for place in places]

    def refuse(*arguments: object) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr("lumoomni.data.world.source.draw", refuse)
    for place, item in zip(places, made, strict=True):
        assert source.outline(*place).image.shape == (0, 0, 3)
        assert told(source.outline(*place)) == told(item)
    with pytest.raises(AssertionError, match="drawn"):
        source.item("train", 0)


def test_a_long_look_shows_a_bar_and_a_short_one_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(30):
        Image.new("RGB", (6, 5), (i, 0, 0)).save(tmp_path / f"{i}.png")
    items = [{"image": f"{i}.png", "caption": f"{i}"} for i in range(30)]
    (tmp_path / "c.json").write_text(json.dumps(items))
    with monkeypatch.context() as without:
        without.delattr("lumoomni.data.watched.Progress")
        open_pictures(f"json:{tmp_path / 'c.json'}", 0, 16)
    assert capfd.readouterr().err == ""
    ticks = itertools.count()
    monkeypatch.setattr("time.monotonic", lambda: float(next(ticks)))
    assert len(open_pictures(f"json:{tmp_path / 'c.json'}", 0, 16).problems) == 0  # type: ignore
    shown = capfd.readouterr().err
    assert "looking at json" in shown and "30/30 rows" in shown


def test_specs_that_name_no_source() -> None:
    with pytest.raises(InputError, match="use one of world, json:PATH"):
        open_pictures("folder:x", 0, 16)
    with pytest.raises(InputError, match="world, world-narrator, csv:PATH"):
        open_speech("txt:x", 0)
    with pytest.raises(InputError, match="world, txt:PATH, jsonl:PATH"):
        open_text("world-narrator", 0)
    with pytest.raises(InputError, match="16000 Hz, not at 24000"):
        open_speech("world", 0, rate=24000)


def test_the_world_is_a_source() -> None:
    text, pictures = open_text("world", 0), open_pictures("world", 0, 32)
    assert text.size("train") is None and text.item("unseen", 3) == text.item("unseen", 3)
    assert text.item("train", 5).turns[-1][0] == "assistant"
    seen = pictures.item("seen", 1)
    assert seen.image.shape == (32, 32, 3) and seen.scene is not None and seen.caption
    narrator, many = open_speech("world-narrator", 0), open_speech("world", 0)
    said = narrator.item("seen", 2)
    assert said.words is not None and said.samples.dtype == np.float32
    other = many.item("other", 2)
    assert other.text == many.item("seen", 2).text == said.text
    assert not np.array_equal(other.samples[:4000], many.item("seen", 2).samples[:4000])


@pytest.mark.parametrize("text", ["—", "Привет, мир"])
def test_a_transcript_that_no_recogniser_can_spell_is_a_named_problem(
    tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = listing(tmp_path, [f"{i}.wav" for i in range(30)])
    path = tmp_path / "list.csv"
    path.write_text(path.read_text().replace("words 7", f'"{text}"').replace("words 8", "für"))
    (problem,) = speech(spec).problems
    assert "list.csv:9: no word with a letter a to z or a digit in" in problem and text in problem
    assert "left out 1 of 30 rows" in capfd.readouterr().err
    path.write_text("wav,text\n" + "".join(f'{i}.wav,"{text}"\n' for i in range(30)))
    with pytest.raises(InputError, match=r"30 of 30 rows cannot be used.*no word with a letter"):
        speech(spec)


def test_sounds_without_room_are_left_out_by_their_headers_or_else_decoded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = listing(tmp_path, [f"{i}.wav" for i in range(20)])
    for name in (3, 4, 5):
        tone(tmp_path / f"{name}.wav", 0.5)
    fits = no_longer(0.25, "a model")
    for told in (sources.sound_seconds, lambda path: None):
        monkeypatch.setattr(sources, "sound_seconds", told)
        source = open_speech(spec, 0, fits=fits)
        assert isinstance(source, SpeechRows) and source.problems == ()
        assert len(source.rows.train) + len(source.rows.held) == 17
        said = capfd.readouterr().err
        assert "left out 3 of 20 rows that are too long" in said and "list.csv:5: 0.5 s" in said
    monkeypatch.setattr(sources, "sound_seconds", lambda path: 0.1)
    lied = open_speech(spec, 0, fits=fits)
    with pytest.raises(InputError, match=r"0.5 s of sound, but a model .*header tells of less"):
        _ = [lied.item(split, i) for split in ("train", "seen") for i in range(20)]
    with pytest.raises(InputError, match=r"0 usable rows .*20 are too long"):
        open_speech(spec, 0, fits=no_longer(0.05, "a model"))
