"""Published layouts with their usual defects become rows, each with its place and its problem."""

import json
import os
from pathlib import Path

import pytest

from lumoomni.data.readers import read
from lumoomni.data.rows import Row
from lumoomni.errors import InputError


def problems(rows: list[Row]) -> list[str]:
    return [row.problem for row in rows]


def test_csv_with_bom_quotes_crlf_and_swapped_columns(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    lines = ["\ufeffText, WAV", '"one, ""two""",a.wav', "", "plain, ./b.wav"]
    path.write_bytes("\r\n".join(lines).encode())
    rows = read("csv", path)
    assert [row.text for row in rows] == ['one, "two"', "plain"]
    assert rows[0].media == tmp_path / "a.wav" and rows[1].asset == "b.wav"
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:4"]
    path.write_text("wav,text\na.wav,hello\n")
    assert read("csv", path)[0].text == "hello"


def test_csv_rows_that_lost_something_say_so(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text('wav,text\na.wav,Hello, world\n,no file\nb.wav,\nc.wav,"two\nlines"\nd.wav\n')
    rows = read("csv", path)
    assert problems(rows) == [
        "3 fields where the header has 2; put quotes around texts that hold commas",
        "no file is named",
        "empty text",
        "",
        "1 fields where the header has 2; put quotes around texts that hold commas",
    ]
    assert rows[3].text == "two\nlines" and rows[4].where == f"{path}:7"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "sound,words\na,b\n",
            r"\['sound', 'words'\]; it needs a header with wav and text",
        ),
        ('wav,text\na.wav,"never closed\nb.wav,x\n', "list.csv:3 is not valid CSV .* quote"),
        ("wav,text\n", "holds 0 samples in the format csv"),
    ],
)
def test_csv_that_cannot_be_read(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        read("csv", path)


def test_ljspeech_takes_the_normalised_text_and_keeps_quotes(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(
        "LJ001-0001|In 1900,|In nineteen hundred,\n"
        'LJ001-0002|"Quoted|"Quoted, and not closed\n'
        "LJ001-0003|only the raw text|\n"
        "LJ001-0004|two fields\n"
        "LJ001-0005\n"
        "LJ001-0006||\n"
        "|no name|no name\n"
    )
    rows = read("ljspeech", tmp_path)
    assert [row.text for row in rows[:4]] == [
        "In nineteen hundred,",
        '"Quoted, and not closed',
        "only the raw text",
        "two fields",
    ]
    assert rows[0].media == tmp_path / "wavs" / "LJ001-0001.wav"
    assert problems(rows[:4]) == [""] * 4
    assert problems(rows[4:]) == ["1 fields, needs 2 or 3", "empty text", "no file is named"]
    with pytest.raises(InputError, match=r"no metadata.csv"):
        read("ljspeech", tmp_path.parent)


def test_librispeech_finds_every_chapter(tmp_path: Path) -> None:
    for speaker, chapter in (("19", "198"), ("26", "495")):
        folder = tmp_path / "train-clean-100" / speaker / chapter
        folder.mkdir(parents=True)
        name = f"{speaker}-{chapter}"
        (folder / f"{name}.trans.txt").write_text(f"{name}-0000 NORTHANGER ABBEY\n{name}-0001\n")
    rows = read("librispeech", tmp_path)
    assert [row.asset for row in rows[::2]] == [
        "train-clean-100/19/198/19-198-0000.flac",
        "train-clean-100/26/495/26-495-0000.flac",
    ]
    assert rows[0].text == "NORTHANGER ABBEY" and problems(rows) == ["", "empty text"] * 2
    assert rows[0].media == tmp_path / rows[0].asset


def test_names_that_are_not_utf8_are_read_and_can_be_printed(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        os.mkdir(folder)  # noqa: PTH102 - a name in bytes
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    place = Path(os.fsdecode(folder))
    (place / "c.trans.txt").write_text("c-0 HELLO\n")
    (place / "c-0.flac").write_bytes(b"x")
    (row,) = read("librispeech", tmp_path)
    assert row.media is not None and row.media.is_file() and not row.problem
    for text in (row.where, row.asset):
        assert "\\udce9" in text.encode().decode()


def test_captions_as_list_and_as_lines(tmp_path: Path) -> None:
    items = [{"image": "a.png", "caption": " red\u2028 "}, {"image": "x/../a.png", "caption": "b"}]
    (tmp_path / "list.json").write_text(json.dumps(items))
    lines = "\r\n".join(json.dumps(item, ensure_ascii=False) for item in items)
    (tmp_path / "lines.json").write_bytes(lines.encode("utf-8-sig"))
    (tmp_path / "pictures").mkdir()
    for name in ("list.json", "lines.json"):
        rows = read("json", tmp_path / name, tmp_path / "pictures")
        assert [row.text for row in rows] == ["red", "b"]
        assert rows[0].media == tmp_path / "pictures" / "a.png"
        assert rows[0].asset == rows[1].asset == "a.png"
    assert read("json", tmp_path / "list.json")[0].media == tmp_path / "a.png"
    with pytest.raises(InputError, match=r"no folder .*nowhere"):
        read("json", tmp_path / "list.json", tmp_path / "nowhere")


def test_bad_captions_are_named_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(
        '[{"image": "a.png"}, {"image": "a.png", "caption": null}, 3, '
        '{"image": "a.png", "caption": "half \\ud800"}, {"image": "a.png", "caption": ""}]'
    )
    rows = read("json", path)
    assert rows[0].where == f"{path}[0]"
    for row, words in zip(
        rows,
        ("no image and caption", "must be text", "no image", "surrogate", "empty text"),
        strict=True,
    ):
        assert words in row.problem
    path.write_text('{"image": "a.png", "caption": "x"}\n{"image": "b.p')
    assert "not valid JSON" in read("json", path)[1].problem
    path.write_text("[1, 2")
    with pytest.raises(InputError, match="not valid JSON"):
        read("json", path)


def test_text_lines_and_dialogues(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(
        "What  is it?\tA cat.\n\nplain \u2028 line\nunanswered\t\n\tno question\na\tb\tc"
    )
    rows = read("txt", path)
    assert rows[0].before == (("user", "What  is it?"),) and rows[0].text == "A cat."
    assert rows[0].asset == "what is it?"
    assert rows[1].before == () and rows[1].text == "plain \u2028 line"
    assert problems(rows) == ["", "", "empty text", "empty question", "3 fields, needs 1 or 2"]
    assert rows[1].where == f"{path}:3"


def test_jsonl_in_the_usual_shapes(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    turns = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!")]
    shapes = [
        {"text": "plain"},
        {"question": "Hi", "answer": "Hello!"},
        {"prompt": "Hi", "response": "Hello!"},
        {"messages": [{"role": role, "content": said} for role, said in turns]},
        {"conversations": [{"from": "human", "value": "HI"}, {"from": "gpt", "value": "Hello!"}]},
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "robot", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, turns[2]]},
        {"question": "Hi"},
        {"answer": "Hello!"},
        {"title": "x"},
        [1],
    ]
    path.write_text("\n".join(map(json.dumps, shapes)) + "\n{broken\n")
    rows = read("jsonl", path)
    assert problems(rows[:5]) == [""] * 5 and [row.text for row in rows[1:5]] == ["Hello!"] * 4
    assert rows[3].before == (("system", "Be kind."), ("user", "Hi"))
    # One system turn over a whole data set must not make it one asset.
    assert [row.asset for row in rows[:5]] == ["plain", "hi", "hi", "hi", "hi"]
    assert "last turn is the user's" in rows[5].problem
    assert "unknown role 'robot'" in rows[6].problem
    assert all(rows[i].problem for i in range(7, 13)) and len(rows) == 13


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    for layout, path, words in (
        ("text", tmp_path / "empty.txt", "did you mean txt"),
        ("txt", tmp_path / "none.txt", "there is no"),
        ("txt", tmp_path, "is a folder, but the format txt is a file"),
        ("ljspeech", tmp_path / "empty.txt", "is a file, but the format ljspeech is a folder"),
        ("librispeech", tmp_path, "holds 0 samples"),
        ("txt", tmp_path / "empty.txt", "holds 0 samples"),
        ("txt", tmp_path / "latin.txt", "not UTF-8 \\(byte 3"),
    ):
        with pytest.raises(InputError, match=words):
            read(layout, path)
