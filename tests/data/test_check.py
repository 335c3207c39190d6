"""The look at a data set: what it counts, what it names, and when it calls the data usable."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from lumoomni.data.check import DataReport, check
from lumoomni.errors import InputError
from lumoomni.model.audio import ctc_needs, feature_count
from tests.tiny import text_codec

Listing = Callable[[list[tuple[str, float]]], Path]


@pytest.fixture()
def listing(tmp_path: Path) -> Listing:
    """A CSV of silent-free sounds: (text, seconds) each in a file of its own."""

    def make(rows: list[tuple[str, float]]) -> Path:
        lines = ["wav,text"]
        for i, (text, seconds) in enumerate(rows):
            samples = np.sin(np.arange(round(seconds * 16000)) / 20) * 0.3
            soundfile.write(tmp_path / f"{i}.wav", samples, 16000)
            lines.append(f'{i}.wav,"{text}"')
        path = tmp_path / "list.csv"
        path.write_text("\n".join(lines))
        return path

    return make


def test_lengths_of_sounds(listing: Listing) -> None:
    seconds = check("csv", listing([(f"t {i}", 0.01 * i) for i in range(1, 41)])).seconds
    assert seconds is not None
    found = (seconds.total, seconds.shortest, seconds.median, seconds.p95, seconds.longest)
    assert found == pytest.approx((8.2, 0.01, 0.205, 0.38, 0.40))


def test_ctc_feasibility_is_what_the_recogniser_needs(listing: Listing, tmp_path: Path) -> None:
    # " aab" needs 4 symbols and a blank between the two a: 5 features, from 33 mel frames on.
    assert ctc_needs([0, 1, 1, 2]) == 5 and (feature_count(32), feature_count(33)) == (4, 5)
    report = check("csv", listing([("aab", 0.32), ("Aab!", 0.32), ("aab", 0.3201), ("aab", 1)]))
    assert report.ctc_infeasible_characters == 0.5 and report.ctc_infeasible_subwords is None
    codec = text_codec()
    codec.save(tmp_path / "tokenizer.json")
    for tokenizer in (tmp_path / "tokenizer.json", tmp_path):
        path = listing([("what colour is the circle", 0.08 * n) for n in range(1, 9)])
        needs = ctc_needs(codec.encode(" what colour is the circle"))
        assert 1 < needs < 8
        report = check("csv", path, tokenizer=tokenizer)
        assert report.ctc_infeasible_subwords == (needs - 1) / 8
        assert report.ctc_infeasible_characters == 1.0


def test_broken_rows_are_counted_once_and_named(listing: Listing) -> None:
    path = listing([(f"text {i}", 0.05) for i in range(60)])
    lines = path.read_text().splitlines()
    lines[1], lines[2], lines[3] = "0.wav,", "1.wav,a, b", '2.wav,"text 9"'
    path.write_text("\n".join([*lines, '9.wav,"text 60"']))
    for name in ("0.wav", "5.wav"):
        (path.parent / name).write_bytes(b"")
    report = check("csv", path)
    assert (report.samples, report.unusable) == (61, 3) and report.usable
    assert report.empty_texts == 1 and f"{path}:2" in report.empty_named[0]
    assert report.malformed == 1 and "list.csv:3: 3 fields" in report.malformed_named[0]
    assert report.unreadable == 2 and "5.wav is empty" in report.unreadable_named[1]
    assert report.duplicate_texts == 1 and report.duplicates_named == ("2 times: text 9",)
    assert report.repeated_files == 1 and report.repeated_named == ("2 times: 9.wav",)
    assert report.label_coverage == 59 / 61
    (path.parent / "6.wav").unlink()
    assert check("csv", path).unusable == 4 and not check("csv", path).usable
    assert json.loads(json.dumps(report.to_dict()))["usable"] is True


def test_only_the_first_are_named_and_all_are_counted(listing: Listing) -> None:
    path = listing([("same", 0.05)] * 30)
    for i in range(30):
        (path.parent / f"{i}.wav").unlink()
    report = check("csv", path)
    assert report.unreadable == 30 and len(report.unreadable_named) == 20 and not report.usable
    assert report.duplicate_texts == 29 and report.seconds is None
    assert report.ctc_infeasible_characters is None


def test_truncation_counts_all_turns(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("what colour is it?\tred\na large red circle\n")
    # 18 + 3 bytes are 5 + 1 tokens at four bytes each; 18 bytes are 5.
    for most, share in ((6, 0.0), (5, 0.5), (4, 1.0)):
        report = check("txt", path, max_tokens=most)
        assert report.truncated == share and "bytes / 4" in report.tokens_counted_by
    codec = text_codec()
    codec.save(tmp_path / "tokenizer.json")
    sizes = [
        len(codec.encode("what colour is it?")) + len(codec.encode("red")),
        len(codec.encode("a large red circle")),
    ]
    exact = check("txt", path, tokenizer=tmp_path / "tokenizer.json", max_tokens=min(sizes))
    assert sizes[0] != sizes[1] and exact.truncated == 0.5
    assert exact.tokens_counted_by.endswith("tokenizer.json")
    with pytest.raises(InputError, match="max_tokens is 0"):
        check("txt", path, max_tokens=0)


def test_an_answer_to_another_question_is_no_duplicate(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("is it red?\tyes\nis it blue?\tyes\nis it red?\tyes\nhello?\t\n")
    report = check("txt", path)
    assert report.duplicate_texts == 1 and report.label_coverage == 0.75
    assert report.empty_texts == 1 and not report.usable
    path.write_text("\n".join(["a?\t"] * 3))
    assert check("txt", path).label_coverage == 0.0


def test_sizes_of_pictures(tmp_path: Path) -> None:
    items = []
    for i, size in enumerate([(40, 60), (8, 6), (100, 20)]):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
        items.append({"image": f"{i}.png", "caption": f"number {i}"})
    path = tmp_path / "c.json"
    path.write_text(json.dumps(items))
    found = check("json", path).pixels
    assert found is not None
    assert (found.smallest, found.median, found.largest) == ((6, 8), (20, 100), (60, 40))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:45])
    cut: DataReport = check("json", path)
    assert cut.unreadable == 1 and "1.png is damaged" in cut.unreadable_named[0]
    assert cut.pixels is not None and cut.pixels.smallest == (20, 100)


def test_transcripts_without_a_word_are_empty_and_captions_of_other_letters_are_not(
    listing: Listing, tmp_path: Path
) -> None:
    report = check("csv", listing([("one", 0.5), ("—", 0.5), ("Привет", 0.5), ("für", 0.5)]))
    assert (report.empty_texts, report.unusable, report.malformed) == (2, 2, 0)
    assert "list.csv:3: no word with a letter a to z or a digit in '—'" in report.empty_named[0]
    assert report.ctc_infeasible_characters == 0.0
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "c.json").write_text(json.dumps([{"image": "a.png", "caption": "Привет"}]))
    assert check("json", tmp_path / "c.json").unusable == 0
    (tmp_path / "t.txt").write_text("Привет\n")
    assert check("txt", tmp_path / "t.txt").unusable == 0
