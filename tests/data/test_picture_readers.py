"""LLaVA and COCO listings in their published formats, with their known defects."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lumoomni.data.conversation import Layout, picture_turns
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
        ({"id": 1, "conversations": said("a", "b")}, "text alone"),
        ({"id": 1, "image": "a.jpg", "conversations": said("no mark", "b")}, "0 <image> marks"),
        (
            {"id": 1, "image": "a.jpg", "conversations": said("<image> and <image>", "b")},
            "2 <image> marks",
        ),
        ({"id": 1, "image": "a.jpg", "conversations": said("<image>", " ")}, "empty answer"),
        ({"id": 1, "image": "a.jpg", "conversations": said("<image>")}, "not by turns"),
        ({"id": 1, "image": "a.jpg", "conversations": []}, "empty conversation"),
        ({"id": 1, "image": "a.jpg", "conversations": said("<image>", "<image>")}, "answer says"),
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
