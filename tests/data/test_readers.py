"""Published layouts with their usual defects, sources split by asset, and the data check."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

from lumoomni.cli import app
from lumoomni.data.check import check
from lumoomni.data.readers import read
from lumoomni.data.sources import open_pictures, open_speech, open_text
from lumoomni.errors import InputError
from tests.tiny import text_codec


def tone(path: Path, seconds: float = 0.5, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.sin(np.arange(int(seconds * rate)) / 20) * 0.3
    soundfile.write(path, samples, rate)
    return path


@pytest.fixture()
def csv(tmp_path: Path) -> Path:
    for i in range(30):
        tone(tmp_path / f"{i}.wav")
    lines = ["\ufefftext,wav"] + [f'"one, two {i}",{i}.wav' for i in range(30)]
    path = tmp_path / "list.csv"
    path.write_bytes("\r\n".join(lines).encode())
    return path


def test_csv_with_bom_quotes_crlf_and_swapped_columns(csv: Path) -> None:
    rows = read("csv", csv)
    assert len(rows) == 30 and rows[3].text == "one, two 3"
    assert rows[3].media == csv.parent / "3.wav"
    bad = csv.parent / "bad.csv"
    bad.write_text("sound,words\na,b\n")
    with pytest.raises(InputError, match=r"needs a header with wav and text"):
        read("csv", bad)


def test_ljspeech_and_librispeech(tmp_path: Path) -> None:
    lj = tmp_path / "LJ"
    tone(lj / "wavs" / "LJ001-0001.wav")
    (lj / "metadata.csv").write_text("LJ001-0001|In 1900,|In nineteen hundred,\n")
    (row,) = read("ljspeech", lj)
    assert row.text == "In nineteen hundred," and row.media is not None and row.media.is_file()
    libri = tmp_path / "LS"
    tone(libri / "19" / "198" / "19-198-0000.flac")
    listing = libri / "19" / "198" / "19-198.trans.txt"
    listing.write_text("19-198-0000 NORTHANGER ABBEY\n")
    (row,) = read("librispeech", libri)
    assert row.text == "NORTHANGER ABBEY" and row.media == listing.parent / "19-198-0000.flac"
    with pytest.raises(InputError, match=r"no metadata.csv"):
        read("ljspeech", libri)


def test_captions_as_list_and_as_lines(tmp_path: Path) -> None:
    items = [{"image": "a.png", "caption": " red "}, {"image": "b.png", "caption": "blue"}]
    (tmp_path / "list.json").write_text(json.dumps(items))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, items)))
    for name in ("list.json", "lines.json"):
        rows = read("json", tmp_path / name, tmp_path / "pictures")
        assert [r.text for r in rows] == ["red", "blue"]
        assert rows[0].media == tmp_path / "pictures" / "a.png"
    (tmp_path / "bad.json").write_text('[{"image": "a.png"}]')
    with pytest.raises(InputError, match="item 0 has no image and caption"):
        read("json", tmp_path / "bad.json")


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    for layout, path, words in (
        ("text", tmp_path / "empty.txt", "did you mean txt"),
        ("txt", tmp_path / "none.txt", "there is no"),
        ("txt", tmp_path, "is a folder, but the format txt is a file"),
        ("txt", tmp_path / "empty.txt", "holds 0 samples"),
        ("txt", tmp_path / "latin.txt", "not UTF-8"),
    ):
        with pytest.raises(InputError, match=words):
            read(layout, path)


def test_sources_split_by_asset_and_wrap_around(csv: Path) -> None:
    lines = csv.read_text(encoding="utf-8").replace("29.wav", "3.wav")
    csv.write_text(lines, encoding="utf-8")
    source = open_speech(f"csv:{csv}", 0)
    sizes = source.size("train"), source.size("seen")
    assert None not in sizes and sum(sizes) == 30 and min(sizes) >= 1  # type: ignore[arg-type]
    rows = source.rows  # type: ignore[attr-defined]
    assert not {r.asset for r in rows.train} & {r.asset for r in rows.held}
    one = source.item("train", 5)
    assert one.words is None and len(one.samples) == 8000
    assert source.item("train", 5).text == one.text
    seen = {source.item("train", i).name for i in range(source.size("train"))}  # type: ignore
    assert len(seen) == source.size("train")


def test_text_and_picture_sources(tmp_path: Path) -> None:
    lines = [f"what is {i}?\tnumber {i}" for i in range(20)] + ["a plain line", "another line"]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    text = open_text(f"txt:{tmp_path / 't.txt'}", 0)
    kinds = {text.item("train", i).kind for i in range(40)}
    assert kinds == {"pair", "line"}
    items = []
    for i in range(20):
        Image.new("RGB", (40, 30), (i * 10, 0, 0)).save(tmp_path / f"{i}.png")
        items.append({"image": f"{i}.png", "caption": f"shade {i}"})
    (tmp_path / "c.json").write_text(json.dumps(items))
    pictures = open_pictures(f"json:{tmp_path / 'c.json'}?image_root={tmp_path}", 0, 16)
    assert pictures.item("seen", 0).image.shape == (16, 16, 3)
    with pytest.raises(InputError, match="use one of world, json:PATH"):
        open_pictures("folder:x", 0, 16)


def test_too_many_missing_files_stop_a_source(csv: Path) -> None:
    for i in range(4):
        (csv.parent / f"{i}.wav").unlink()
    with pytest.raises(InputError, match=r"4 of 30 rows cannot be used.*lumo data check csv"):
        open_speech(f"csv:{csv}", 0)


def test_the_check_counts_names_and_judges(csv: Path, tmp_path: Path) -> None:
    good = check("csv", csv)
    assert good.usable and good.samples == 30 and good.seconds is not None
    assert good.seconds.median == pytest.approx(0.5) and good.label_coverage == 1.0
    # "one, two 3" has 9 letters; half a second holds 7 features: no character CTC can spell it.
    assert good.ctc_infeasible_characters == 1.0
    text_codec().save(tmp_path / "tokenizer.json")
    exact = check("csv", csv, tokenizer=tmp_path / "tokenizer.json", max_tokens=2)
    assert exact.truncated == 1.0 and exact.ctc_infeasible_subwords is not None
    (csv.parent / "7.wav").write_bytes(b"")
    lines = csv.read_text(encoding="utf-8-sig").splitlines()
    lines[1:3] = [",0.wav", lines[3]]
    csv.write_text("\n".join(lines))
    bad = check("csv", csv)
    assert (bad.unreadable, bad.empty_texts, bad.duplicate_texts) == (1, 1, 1)
    assert "7.wav is empty" in bad.unreadable_named[0] and not bad.usable


def test_the_command_prints_and_exits(csv: Path) -> None:
    result = CliRunner().invoke(app, ["data", "check", "csv", str(csv), "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout)["usable"] is True
    for i in range(10):
        (csv.parent / f"{i}.wav").unlink()
    assert CliRunner().invoke(app, ["data", "check", "csv", str(csv)]).exit_code == 1
    assert CliRunner().invoke(app, ["data", "check", "cvs", str(csv)]).exit_code == 2
