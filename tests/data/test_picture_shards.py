"""WebDataset shards as its own writer makes them, and shards that lost or doubled something."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumoomni.data.check import check
from lumoomni.data.picture_shards import Member
from lumoomni.data.readers import read
from lumoomni.data.sources import open_pictures
from lumoomni.data.stored import identity, load_picture
from lumoomni.errors import InputError

Members = list[tuple[str, bytes]]


def picture(shade: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (10, 8), (shade, 0, 0)).save(buffer, form)
    return buffer.getvalue()


def shard(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def many(count: int, first: int = 0) -> Members:
    """Samples of a picture and a caption each, no picture twice."""
    made: Members = []
    for i in range(first, first + count):
        made += [(f"{i:06d}.png", picture(i)), (f"{i:06d}.txt", f"shade {i}\n".encode())]
    return made


def test_captions_as_text_and_as_metadata(tmp_path: Path) -> None:
    """img2dataset writes .jpg, .json and .txt; others write a .json alone. Folders part keys."""
    facts = {"caption": "in json", "url": "x", "status": "success", "width": 10}
    path = shard(
        tmp_path / "00000.tar",
        [
            ("part.0/0001.jpg", picture(0, "JPEG")),
            ("part.0/0001.json", json.dumps(facts).encode()),
            ("part.0/0001.txt", b"\xef\xbb\xbfin txt \n"),
            ("part.1/0001.JPEG", picture(9, "JPEG")),
            ("part.1/0001.json", json.dumps(facts).encode()),
            ("a.webp", picture(30, "WEBP")),
            ("a.cls", b"3"),
            ("a.json", b'{"text": "a text"}'),
        ],
    )
    rows = read("webdataset", path)
    assert [row.text for row in rows] == ["in txt", "in json", "a text"]
    assert [row.problem for row in rows] == [""] * 3
    assert rows[0].where == f"{path}:part.0/0001" and len({row.asset for row in rows}) == 3
    shown = [load_picture(row.files[0]) for row in rows]
    assert all(image.shape == (8, 10, 3) for image in shown)
    assert [int(image[..., 0].mean().round()) for image in shown] == pytest.approx(
        [0, 9, 30], abs=3
    )


def test_conversations_with_one_and_several_pictures(tmp_path: Path) -> None:
    def told(*texts: str) -> bytes:
        turns = [{"from": ("human", "gpt")[i % 2], "value": t} for i, t in enumerate(texts)]
        return json.dumps({"id": "x", "conversations": turns}).encode()

    path = shard(
        tmp_path / "a.tar",
        [
            ("one.png", picture(1)),
            ("one.json", told("Who?\n<image>", "Ann.", "Sure?", "Yes.")),
            ("two.0.png", picture(2)),
            ("two.1.png", picture(3)),
            ("two.json", told("A: <image>\nB: <image>\nSame?", "No.")),
            ("bad.0.png", picture(4)),
            ("bad.1.png", picture(5)),
            ("bad.json", told("<image>\nSame?", "No.")),
            ("captioned.0.png", picture(6)),
            ("captioned.1.png", picture(7)),
            ("captioned.txt", b"two things"),
        ],
    )
    one, two, bad, captioned = read("webdataset", path)
    assert one.before[0] == ("user", "Who?") and one.text == "Yes." and one.places == ()
    assert two.before == (("user", "A: B: Same?"),) and two.places == ((0, 3), (0, 6))
    assert [load_picture(media)[0, 0, 0] for media in two.files] == [2, 3]
    assert bad.problem == "1 <image> marks for 2 images"
    assert captioned.problem.startswith("2 pictures and no conversation")


def test_defects_are_named_and_keep_their_place(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "a.tar",
        [
            ("good.png", picture(1)),
            ("._good.png", b"resource fork"),
            ("part/._good.jpg", b"resource fork"),
            ("README", b"no key"),
            ("good.txt", b"fine"),
            ("silent.png", picture(2)),
            ("blind.txt", b"nothing to see"),
            ("twice.png", picture(3)),
            ("twice.txt", b"once"),
            ("empty.png", picture(4)),
            ("empty.txt", b" \n"),
            ("latin.png", picture(5)),
            ("latin.txt", "caf\xe9".encode("latin-1")),
            ("broken.png", picture(6)),
            ("broken.json", b'{"caption": '),
            ("number.png", picture(7)),
            ("number.json", b'{"caption": 3}'),
            ("twice.png", picture(8)),
        ],
    )
    found = {row.where.rpartition(":")[2]: row.problem for row in read("webdataset", path)}
    assert list(found) == [
        *("good", "silent", "blind", "twice", "empty", "latin", "broken", "number")
    ]
    for key, words in (
        ("silent", "no text: neither .txt, nor .json"),
        ("blind", "no picture (.jpg, .jpeg, .png, .webp) among blind.txt"),
        ("twice", "2 members have the name twice.png"),
        ("empty", "empty text"),
        ("latin", "latin.txt is not UTF-8 (byte 3)"),
        ("broken", "Expecting value"),
        ("number", "the caption must be text: 3"),
    ):
        assert words in found[key], (key, found[key])
    assert found["good"] == ""


def test_names_that_are_not_utf8_are_read_and_can_be_printed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name, data in (("caf\xe9.png", picture(1)), ("caf\xe9.txt", b"a caf")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (row,) = read("webdataset", path)
    assert row.problem == "" and row.where.encode().endswith(b"caf\\udce9")
    assert str(row.media).encode() and load_picture(row.files[0])[0, 0, 0] == 1


def test_shards_by_folder_and_by_pattern(tmp_path: Path) -> None:
    for i in range(9, 12):
        shard(tmp_path / f"train-{i:06d}.tar", many(2, 2 * i))
    (tmp_path / "._train-000009.tar").write_bytes(b"resource fork")
    whole = [row.where for row in read("webdataset", tmp_path)]
    assert len(whole) == 6
    assert [
        row.where for row in read("webdataset", tmp_path / "train-{000009..000011}.tar")
    ] == whole
    some = read("webdataset", tmp_path / "train-0000{10..11}.tar")
    assert [row.where for row in some] == whole[2:]
    for name, words in (
        ("train-{000008..000013}.tar", r"3 of 6 shards are not there, the first is .*000008.tar"),
        ("train-{3..2}.tar", "names 0 shards"),
        ("train-{0..999999}.tar", "names 1,000,000 shards; it must be 1 to 100,000"),
        ("test.tar", "1 of 1 shards are not there"),
    ):
        with pytest.raises(InputError, match=words):
            read("webdataset", tmp_path / name)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"holds no \.tar"):
        read("webdataset", tmp_path / "none")
    with pytest.raises(InputError, match="leave image_root out"):
        read("webdataset", tmp_path, tmp_path)


@pytest.mark.parametrize("where", ["in a picture", "in a header", "between members", "empty"])
def test_a_shard_that_is_cut_off_is_named(tmp_path: Path, where: str) -> None:
    shard(tmp_path / "0.tar", many(20))
    cut = shard(tmp_path / "1.tar", many(20, 20))
    with tarfile.open(cut) as tar:
        member = tar.getmembers()[30]
    size = {
        "in a picture": member.offset_data + 9,
        "in a header": member.offset + 100,
        "between members": member.offset,
        "empty": 0,
    }[where]
    cut.write_bytes(cut.read_bytes()[:size])
    with pytest.raises(InputError, match=r"1 of 2 shards cannot be read to their end: .*1\.tar "):
        read("webdataset", tmp_path)


def test_a_damaged_header_and_a_compressed_shard_are_named(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", many(20))
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[11].offset
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=f"0.tar has no end mark .*byte {offset:,}"):
        read("webdataset", path)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    with pytest.raises(InputError, match=r"compressed at byte 0 .*as plain tar"):
        read("webdataset", path)


def test_as_a_source(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    members = many(40)
    # One picture under another key: it must not stand on both sides of the split.
    members += [(f"again{i}.png", picture(i)) for i in range(40)]
    members += [(f"again{i}.txt", b"said otherwise") for i in range(40)]
    path = shard(tmp_path / "a.tar", [*members, ("bad.png", b"no picture"), ("bad.txt", b"x")])
    source = open_pictures(f"webdataset:{path}", 0, 16)
    assert "left out 1 of 81 rows" in capfd.readouterr().err
    sizes = [source.size(split) or 0 for split in ("train", "seen")]
    assert sum(sizes) == 80 and min(sizes) > 0
    shades = []
    for split, size in zip(("train", "seen"), sizes, strict=True):
        items = [source.item(split, i) for i in range(size)]
        assert all(item.image.shape == (16, 16, 3) for item in items)
        plain = [item for item in items if item.caption.startswith("shade")]
        assert all(item.image[0, 0, 0] == int(item.caption.split()[1]) for item in plain)
        shades.append({int(item.image[0, 0, 0]) for item in items})
    assert not shades[0] & shades[1]
    with pytest.raises(InputError, match=r"4 of 44 rows .*a.tar:bad0.png: has no picture header"):
        bad = [(f"bad{i}.{end}", b"no picture") for i in range(4) for end in ("png", "txt")]
        open_pictures(f"webdataset:{shard(path, [*many(40), *bad])}", 0, 16)


def test_check_names_what_does_not_decode(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", [*many(30), ("cut.png", picture(99)[:45]), ("cut.txt", b"x")])
    again = [("again.png", picture(3)), ("again.txt", b"said otherwise")]
    shard(tmp_path / "b.tar", [*again, ("zero.png", b""), ("zero.txt", b"y")])
    report = check("webdataset", tmp_path)
    assert (report.samples, report.unreadable, report.unusable) == (33, 2, 2)
    assert report.unreadable_named[0].startswith(f"{path}:cut: {path}:cut.png is damaged")
    assert report.repeated_files == 1 and report.repeated_named == (f"2 times: {path}:000003.png",)
    assert report.pixels is not None and report.pixels.median == (8, 10)


def test_pictures_stay_where_they_are_until_they_are_asked_for(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", many(4))
    source = open_pictures(f"webdataset:{path}", 0, None)
    kept = path.read_bytes()
    path.write_bytes(b"")
    outline = source.outline("train", 0)
    assert outline.image.shape == (0, 0, 3) and outline.caption.startswith("shade")
    with pytest.raises(InputError, match=r"a.tar:00000\d.png has 0 of its \d+ bytes"):
        source.item("train", 0)
    path.write_bytes(kept)
    assert source.item("train", 0).caption == outline.caption
    path.unlink()
    with pytest.raises(InputError, match=r"a.tar:00000\d.png cannot be read"):
        source.fingerprints("train", 0)


def test_an_identity_is_of_the_bytes_and_not_of_the_name(tmp_path: Path) -> None:
    data = bytearray(20_000)
    made = [bytes(data)]
    for place in (0, 19_999):
        made.append(bytes([*data[:place], 1, *data[place + 1 :]]))
    made.append(bytes(20_001))
    paths = [shard(tmp_path / f"{i}.tar", [(f"{i}.bin", one)]) for i, one in enumerate(made)]
    again = shard(tmp_path / "again.tar", [("first", b"x"), ("other.bin", made[0])])
    found = []
    for path in (*paths, again):
        with tarfile.open(path) as tar:
            info = tar.getmembers()[-1]
        found.append(identity(Member(path, info.name, info.offset_data, info.size)))
    assert len(set(found[:4])) == 4 and found[4] == found[0]


def test_a_window_is_the_member_alone(tmp_path: Path) -> None:
    data = np.arange(5000, dtype=np.uint16).tobytes()
    path = shard(tmp_path / "a.tar", [("a.bin", b"before"), ("b.bin", data), ("c.bin", b"after")])
    with tarfile.open(path) as tar:
        info = tar.getmember("b.bin")
    with Member(path, "b.bin", info.offset_data, info.size).open() as file:
        assert file.read() == data and file.read() == b""
        assert file.seek(-10, io.SEEK_END) == 9990 and file.read(99) == data[-10:]
        file.seek(4)
        assert file.read(6) == data[4:10] and file.tell() == 10
        file.seek(20_000)
        assert file.read(1) == b""
