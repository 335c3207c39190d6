"""LLaVA and COCO listings in their published formats, with their known defects."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lumoomni.data.conversation import Layout, picture_turns
from lumoomni.data.headers import header_problem
from lumoomni.data.readers import read
from lumoomni.data.sample import PictureItem
from lumoomni.data.sources import open_pictures
from lumoomni.errors import InputError
from lumoomni.ids import IGNORE, IMAGE_PATCH
from tests.tiny import MEL, text_codec


def said(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def listing(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data))
    return path


def test_pretrain_and_instruct_conversations(tmp_path: Path) -> None:
    """One caption with the mark behind the request, and several turns with it in front."""
    path = listing(
        tmp_path / "blip_laion_cc_sbu_558k.json",
        [
            {
                "id": "004539375",
                "image": "00453/004539375.jpg",
                "conversations": said("Render a summary.\n<image>", "select luxury furniture"),
            },
            {
                "id": 33471,
                "image": "000000033471.jpg",
                "conversations": said("<image>\nWhat colours?", "White and red.", "Why?", "Ads."),
            },
        ],
    )
    one, two = read("llava", path, tmp_path)
    assert one.before == (("user", "Render a summary."),)
    assert one.text == "select luxury furniture" and not one.problem
    assert one.media == tmp_path / "00453/004539375.jpg" and one.where.endswith("[0] id 004539375")
    assert [role for role, _ in two.before] == ["user", "assistant", "user"]
    assert two.before[0][1] == "What colours?" and two.text == "Ads." and "id 33471" in two.where


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"id": 1, "conversations": said("a <image>", "b")}, "1 <image> marks for 0 images"),
        ({"id": 1, "image": "a.jpg", "conversations": said("no mark", "b")}, "0 <image> marks"),
        (
            {"id": 1, "image": "a.jpg", "conversations": said("<image> and <image>", "b")},
            "2 <image> marks",
        ),
        ({"id": 1, "image": "a.jpg", "conversations": said("<image>", " ")}, "empty answer"),
        ({"id": 1, "image": "a.jpg", "conversations": said("<image>")}, "not by turns"),
        ({"id": 1, "image": "a.jpg", "conversations": []}, "empty conversation"),
        ({"id": 1, "image": "a.jpg", "conversations": said("<image>", "<image>")}, "answer says"),
        (
            {"id": 1, "image": ["a.jpg", "b.jpg"], "conversations": said("<image>", "b")},
            "1 <image> marks for 2 images",
        ),
        (
            {"id": 1, "image": ["a.jpg"], "conversations": said("<image> <image>", "b")},
            "2 <image> marks for 1 image",
        ),
        ({"id": 1, "image": [], "conversations": said("a", "b")}, "image is []"),
        (
            {"id": 1, "image": ["a.jpg", 2], "conversations": said("a", "b")},
            "image is ['a.jpg', 2]",
        ),
        ({"id": 1, "image": 5, "conversations": said("<image>", "b")}, "image is 5"),
        ({"id": 1, "image": "a.jpg", "conversations": [{"from": "dog"}]}, "unknown role 'dog'"),
        ({"id": 1, "image": "a.jpg", "conversations": [{"from": "gpt"}]}, "turn without text"),
        ("no object", "no conversation"),
    ],
)
def test_defects_are_named_and_keep_their_place(tmp_path: Path, item: Any, words: str) -> None:
    good = {"id": "x", "image": "b.jpg", "conversations": said("<image>\nhi", "yes")}
    rows = read("llava", listing(tmp_path / "l.json", [good, item]), None)
    assert len(rows) == 2 and not rows[0].problem
    assert words in rows[1].problem and rows[1].where.startswith(f"{tmp_path / 'l.json'}[1]")


def test_several_pictures_stand_where_their_marks_stood(tmp_path: Path) -> None:
    """M4-Instruct: marks in a row, marks between words, and marks in later turns."""
    items = [
        ("<image>\n<image>\n What differs?", "The hat.", "And here?\n<image>", "Nothing."),
        ("<image>\nA. Left: <image>\nB. Right: <image>\n\nWhich?\n", "Left."),
        ("Hello.", "Hi.", "<image>\n<image>\n<image>", "Three."),
    ]
    names = ["a.jpg", "x/../b.jpg", "c.jpg"]
    data = [{"id": str(i), "image": names, "conversations": said(*t)} for i, t in enumerate(items)]
    data.append({"sample_id": "w3_1", "image": ["a.jpg"], "conversations": said("A <image>", "b")})
    one, two, three, single = read("llava", listing(tmp_path / "m4.json", data), None)
    assert not any(row.problem for row in (one, two, three, single))
    assert [said for _, said in one.before] == [" What differs?", "The hat.", "And here?"]
    assert one.places == ((0, 0), (0, 0), (2, 9)) and one.text == "Nothing."
    ((_, asked),) = two.before
    assert asked == "A. Left: B. Right: \nWhich?" and two.places == ((0, 0), (0, 9), (0, 19))
    assert three.before[2] == ("user", "") and three.places == ((2, 0),) * 3
    assert one.files == tuple(tmp_path / name for name in names)
    assert one.assets == ("a.jpg", "b.jpg", "c.jpg")
    assert single.places == () and single.before == (("user", "A"),) and single.others == ()


def test_several_pictures_in_the_sequence(tmp_path: Path) -> None:
    """The slots stand between the words, and the pixels come in the same order."""
    for i in range(9):
        Image.fromarray(np.full((4, 4, 3), 20 * i, np.uint8)).save(tmp_path / f"{i}.png")
    turns = said("<image>\nred <image>\nblue", "yes", "and <image> now", "no")
    items = [
        {"id": i, "image": [f"{name}.png" for name in names], "conversations": turns}
        for i, names in enumerate(["012", "453"])
    ]
    source = open_pictures(f"llava:{listing(tmp_path / 'l.json', items)}", 0, None)
    codec = text_codec()
    layout = Layout(text_codec=codec, template="compact", mel=MEL, image_positions=2)
    (item,) = [i for i in (source.item(s, 0) for s in ("train", "seen")) if "[1]" in i.name]
    assert [int(x[0, 0, 0]) for x in (item.image, *item.others)] == [80, 100, 60]
    made = layout.encode(picture_turns(item, "unused"))
    shades = [round((float(x[0, 0, 0]) + 1) * 127.5) for x in made.pixels]
    assert shades == [80, 100, 60]
    first, second, third = made.sequence.slots
    ids = made.sequence.ids.tolist()
    begin, end = (codec.special(f"<|vision_{side}|>") for side in ("start", "end"))
    assert ids[first.stop] == end and ids[first.stop + 1 : second.start - 1] == codec.encode("red ")
    assert ids[second.start - 1] == begin
    assert (
        codec.encode("blue") == ids[second.stop + 1 : second.stop + 1 + len(codec.encode("blue"))]
    )
    assert ids[third.stop + 1 : third.stop + 1 + len(codec.encode(" now"))] == codec.encode(" now")
    answers = [span for span in made.sequence.spans if span.role == "assistant"]
    assert second.stop < answers[0].start < third.start < answers[1].start


def test_places_must_match_the_pictures() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    turns = (("user", "look"), ("assistant", "yes"))
    item = PictureItem(picture, "yes", None, "x", turns=turns, others=(picture,), places=((0, 4),))
    with pytest.raises(ValueError, match="is longer than"):
        picture_turns(item, "unused")
    item = PictureItem(picture, "yes", None, "x", others=(picture,))
    assert len(picture_turns(item, "Describe both.")[0].images) == 2


def test_names_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(name, "wb") as file:  # noqa: PTH123 - a name in bytes
            Image.new("RGB", (4, 4)).save(file, "PNG")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    items = [
        {"id": i, "image": image, "conversations": said("<image>", "black")}
        for i, image in enumerate(["caf\udce9.png", "a.png"])
    ]
    rows = read("llava", listing(tmp_path / "l.json", items), None)
    assert [row.problem for row in rows] == ["", ""] and rows[0].asset == "caf\\udce9.png"
    assert header_problem(rows[0].files[0], "picture") == ""
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 rows .*a.png: there is no such file"):
        open_pictures(f"llava:{tmp_path / 'l.json'}", 0, None)


def test_coco_captions_share_the_picture_of_their_id(tmp_path: Path) -> None:
    path = listing(
        tmp_path / "captions_train2017.json",
        {
            "images": [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 25}],
            "annotations": [
                {"image_id": 9, "id": 661611, "caption": "Closeup of bins of food."},
                {"image_id": 9, "id": 661977, "caption": "A meal."},
                {"image_id": 7, "id": 3, "caption": "Nothing is known of it."},
                {"image_id": 9, "id": 4},
            ],
        },
    )
    rows = read("coco", path, tmp_path / ".")
    assert [row.problem for row in rows[:3]] == ["", "", "no image has the id 7"]
    assert "no caption" in rows[3].problem
    assert rows[0].asset == rows[1].asset == "000000000009.jpg" and rows[0].before == ()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="captions_"):
        read("coco", listing(tmp_path / "instances.json", {"images": []}), None)
    with pytest.raises(InputError, match="no JSON list"):
        read("llava", listing(tmp_path / "a.json", {"a": 1}), None)
    (tmp_path / "b.json").write_text('[{"id": 1,')
    with pytest.raises(InputError, match="not valid JSON"):
        read("llava", tmp_path / "b.json", None)


def test_just_the_answers_and_their_ends_are_learned(tmp_path: Path) -> None:
    """Decode exactly what is supervised of a conversation that came through the source."""
    items = []
    for i in range(6):
        Image.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
        turns = said(f"<image>\nwhat colour is {i}?", "it is red", "and the circle?", f"blue {i}")
        items.append({"id": i, "image": f"{i}.png", "conversations": turns})
    path = listing(tmp_path / "l.json", items)
    source = open_pictures(f"llava:{path}", 0, 32)
    codec = text_codec()
    for template in ("compact", "chatml"):
        layout = Layout(text_codec=codec, template=template, mel=MEL, image_positions=4)
        item = source.item("train", 0)
        made = layout.encode(picture_turns(item, "unused"))
        labels = [int(x) for x in made.sequence.labels if x != IGNORE]
        end = codec.special("<|im_end|>")
        first = labels.index(end)
        assert codec.decode(labels[:first]) == "it is red"
        assert codec.decode(labels[first + 1 : -1]) == item.caption and labels[-1] == end
        assert len(made.pixels) == 1 and made.pixels[0].shape == (3, 32, 32)
        slot = made.sequence.slots[0]
        assert slot.stop - slot.start == 4 and made.sequence.spans[0].start > slot.stop


def test_plain_is_the_picture_and_the_caption_alone(tmp_path: Path) -> None:
    codec = text_codec()
    layout = Layout(text_codec=codec, template="plain", mel=MEL, image_positions=3)
    picture = np.zeros((8, 8, 3), np.uint8)
    item = PictureItem(picture, "a red circle", None, "one")
    made = layout.encode(picture_turns(item, "Describe the picture."))
    ids, labels = made.sequence.ids.tolist(), made.sequence.labels.tolist()
    begin, end = (codec.special(f"<|vision_{side}|>") for side in ("start", "end"))
    caption, stop = codec.encode("a red circle"), codec.special("<|endoftext|>")
    assert ids == [begin, *[IMAGE_PATCH] * 3, end, *caption, stop]
    assert labels == [IGNORE] * 5 + [*caption, stop]
    asked = layout.encode(picture_turns(item, "x")[:1], open_answer=True)
    assert asked.sequence.ids.tolist() == ids[:5]
