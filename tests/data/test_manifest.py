"""Manifests: what is written is read, and each defect of a line is named with its place."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.data.manifest import (
    Asset,
    Record,
    media_path,
    read_header,
    read_manifest,
    write_manifest,
)
from lumoomni.errors import InputError

A, B = "a" * 64, "b" * 64
SOUND = Asset(path="x.wav", sha256=A)

# Half surrogates are what no file can hold; all other text must come back.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
named = texts.filter(bool)
said = texts.filter(lambda text: bool(text.strip()))
assets = st.builds(Asset, path=named, sha256=st.text("0123456789abcdef", min_size=64, max_size=64))


@st.composite
def a_record(draw) -> Record:
    task = draw(st.sampled_from(("i2t", "t2i", "a2t", "t2a", "text")))
    return Record(
        id=draw(named),
        source=draw(texts),
        task=task,
        text=draw(said),
        prompt=draw(texts),
        image=draw(assets) if task in ("i2t", "t2i") else draw(st.none() | assets),
        audio=draw(assets) if task in ("a2t", "t2a") else draw(st.none() | assets),
        split=draw(st.sampled_from(("", "train", "eval", "dev-clean"))),
        official=draw(texts),
        licence=draw(texts),
    )


many = st.lists(a_record(), max_size=6, unique_by=lambda record: record.id)


@settings(max_examples=60)
@given(many, st.randoms())
def test_what_is_written_is_read(tmp_path_factory, records, random) -> None:
    path = tmp_path_factory.mktemp("m") / "m.jsonl"
    assert write_manifest(path, records, source="s", made_with={"x": 1}) == len(records)
    assert list(read_manifest(path)) == sorted(records, key=lambda record: record.id)
    assert (read_header(path).source, read_header(path).made_with) == ("s", {"x": 1})
    assert read_header(path).records == len(records)
    data = path.read_bytes()
    assert data.count(b"\n") == len(records) + 1
    write_manifest(path, random.sample(records, len(records)), source="s", made_with={"x": 1})
    assert path.read_bytes() == data


def record(name: str = "a", **other: object) -> Record:
    fields = {"source": "s", "task": "a2t", "text": "t", "audio": SOUND, **other}
    return Record(id=name, **fields)  # type: ignore[arg-type]


def test_two_records_of_one_id_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    other = Asset(path="y.wav", sha256=B)
    with pytest.raises(InputError, match=r"two records have the id 'a' \(x.wav and y.wav\)"):
        write_manifest(path, [record(), record("b"), record(audio=other)], source="s")
    with pytest.raises(InputError, match="half a surrogate pair"):
        write_manifest(path, [record(text="\ud83d")], source="s")
    assert not path.exists()


def test_a_failed_write_leaves_the_manifest_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_manifest(path, [record()], source="s")
    before = path.read_bytes()
    with pytest.raises(InputError):
        write_manifest(path, [record("b"), record("b")], source="s")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


HEADER = '{"manifest": 1, "source": "s", "made_with": null}'
GOOD = {"id": "b", "source": "s", "task": "a2t", "text": "t", "audio": {"path": "x", "sha256": A}}


def line(**changes: object) -> str:
    fields = {**GOOD, **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "is empty"),
        (["{"], r"m.jsonl:1 is not valid JSON"),
        ([line()], r"m.jsonl:1 is no header"),
        (['{"manifest": 2, "source": "s"}'], "has schema 2, this version reads 1"),
        (['{"manifest": true, "source": "s"}'], "has schema True"),
        (['{"manifest": 1, "source": 4}'], "needs source as text"),
        (['{"manifest": 1, "source": "s", "record": 1}'], "'record'; did you mean records"),
        (['{"manifest": 1, "source": "s", "records": "1"}'], "records is '1'"),
        (['{"manifest": 1, "source": "s", "records": 2}', line()], "1 of the 2 records"),
        ([HEADER, line(), "{"], r"m.jsonl:3 is not valid JSON"),
        ([HEADER, "[]"], r"m.jsonl:2 holds \[\]"),
        ([HEADER, line(txet="t")], r"m.jsonl:2 has an unknown field 'txet'; did you mean text"),
        ([HEADER, line(text=...)], r"m.jsonl:2: the record has no text"),
        ([HEADER, line(text=3)], r"m.jsonl:2: text is 3; it must be text"),
        ([HEADER, line(text=" ")], r"m.jsonl:2: b: the text is empty"),
        ([HEADER, line(id="")], r"m.jsonl:2: a record has no id"),
        (
            [HEADER, line(task="a2a")],
            r"m.jsonl:2: b: there is no task 'a2a'; did you mean t2a or a2t",
        ),
        ([HEADER, line(task="i2t")], r"m.jsonl:2: b: the task i2t needs the field image"),
        ([HEADER, line(split="../x")], r"m.jsonl:2: b: '../x' is no split"),
        ([HEADER, line(audio="x.wav")], r'm.jsonl:2: audio is x.wav; it must be {"path"'),
        ([HEADER, line(audio=None)], r"m.jsonl:2: b: the task a2t needs the field audio"),
        ([HEADER, line(audio={"path": "x"})], r"m.jsonl:2: audio needs path and sha256"),
        ([HEADER, line(audio={"path": "x", "sha": A})], "'sha'; did you mean sha256"),
        ([HEADER, line(audio={"path": "x", "sha256": A.upper()})], "must be 64 lower-case hex"),
        ([HEADER, line(audio={"path": "", "sha256": A})], "audio: an asset has no path"),
        ([HEADER, line(), line()], "lines 2 and 3 have the id 'b'"),
        ([HEADER, line(), line(id="c"), line()], "lines 2 and 4 have the id 'b'"),
        ([HEADER, line(), line(id="a")], "m.jsonl:3: the id 'a' stands after 'b'"),
    ],
)
def test_defects_are_named_with_their_line(tmp_path: Path, lines: list[str], words: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("".join(f"{one}\n" for one in lines))
    with pytest.raises(InputError, match=words):
        list(read_manifest(path))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no manifest"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(HEADER.encode() + b'\n{"id": "\xe9"}\n')
    with pytest.raises(InputError, match="is not UTF-8"):
        list(read_manifest(tmp_path / "latin.jsonl"))


def test_a_header_is_looked_at_at_once_and_records_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join([HEADER, line(), "{"]))
    records = read_manifest(path)
    assert next(records).id == "b"
    with pytest.raises(InputError, match=r"m.jsonl:3"):
        next(records)


def test_where_media_lie() -> None:
    at = Path("/data/m.jsonl")
    for path, wanted in (
        ("a/b.wav", "/data/a/b.wav"),
        ("/x/b.wav", "/x/b.wav"),
        ("s3://bucket/b.wav", "s3://bucket/b.wav"),
    ):
        assert media_path(at, Asset(path=path, sha256=A)) == wanted


def test_the_asset_is_that_of_the_task() -> None:
    picture = Asset(path="x.png", sha256=B)
    both = {"image": picture, "audio": SOUND}
    assert [record(task=task, **both).asset for task in ("i2t", "t2a", "text")] == [
        picture,
        SOUND,
        None,
    ]
