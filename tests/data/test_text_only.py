"""Conversations without a picture among those with one, as in LLaVA's mix of 665 K."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lumoomni.data.check import check
from lumoomni.data.conversation import Layout, picture_turns
from lumoomni.data.feeding import Feed
from lumoomni.data.packing import PackConfig
from lumoomni.data.readers import read
from lumoomni.data.sample import take, take_shown
from lumoomni.data.sources import PictureRows, open_pictures, text_only
from lumoomni.errors import InputError
from tests.tiny import MEL, text_codec


def said(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def shown(number: int) -> dict[str, Any]:
    """As the mix writes a conversation about a picture."""
    asked = ("<image>\nWhat is shown?", f"Number {number}.", "Sure?", f"Yes, {number}.")
    name = f"coco/train2017/{number:012}.jpg"
    return {"id": f"{number:012}", "image": name, "conversations": said(*asked)}


def alone(number: int) -> dict[str, Any]:
    """As the mix writes ShareGPT's: no image, and an empty model."""
    asked = (f"Write a poem about {number}.", f"One {number}, two.", "Go on.", "Three.")
    return {"id": f"wgByO4Y_{number}", "model": "", "conversations": said(*asked)}


def mix(root: Path, pictures: int, texts: int, broken: int = 0) -> Path:
    (root / "coco/train2017").mkdir(parents=True, exist_ok=True)
    items = [shown(number) for number in range(pictures)]
    for item in items:
        pixels = np.full((8, 8, 3), int(item["id"]) * 3 % 256, np.uint8)
        Image.fromarray(pixels).save(root / item["image"])
    items += [alone(number) for number in range(texts)]
    items += [{"id": f"b{n}", "conversations": said("<image>\nWhat?", "A.")} for n in range(broken)]
    path = root / "llava_v1_5_mix665k.json"
    path.write_text(json.dumps(items))
    return path


def test_it_is_a_row_without_media_and_no_fault(tmp_path: Path) -> None:
    *_, text, broken = read("llava", mix(tmp_path, 2, 1, 1), None)
    assert text.text_only and not text.problem and text.files == () and text.places == ()
    assert [role for role, _ in text.before] == ["user", "assistant", "user"]
    assert text.before[0][1] == "Write a poem about 0." and text.text == "Three."
    # A mark without an image is a picture that was lost.
    assert broken.problem == "1 <image> marks for 0 images" and not broken.text_only


def test_the_look_counts_it_apart(tmp_path: Path) -> None:
    report = check("llava", mix(tmp_path, 40, 20, 2))
    assert (report.samples, report.text_only, report.unusable) == (62, 20, 2) and report.usable
    assert report.to_dict()["text_only"] == 20 and report.label_coverage == 60 / 62
    # Text hides no broken picture: 3 of 62 are less than 5 %, 3 of the 43 others are more.
    assert not check("llava", mix(tmp_path, 40, 19, 3)).usable
    plain = tmp_path / "t.txt"
    plain.write_text("a text\n")
    assert check("txt", plain).text_only == 0


def test_who_learns_from_pictures_alone_leaves_it_out(tmp_path: Path) -> None:
    """The rows that are left are those of the listing without text, in the same order."""
    path = mix(tmp_path, 60, 30)
    source = open_pictures(f"llava:{path}", 0, 16)
    assert isinstance(source, PictureRows) and text_only(source) == 30
    assert source.rows.problems == ()
    bare = open_pictures(f"llava:{mix(tmp_path, 60, 0)}", 0, 16)
    assert text_only(bare) == 0
    for split in ("train", "seen"):
        names = [[one.item(split, i).caption for i in range(80)] for one in (source, bare)]
        assert names[0] == names[1]
    with pytest.raises(InputError, match="text_only=use, but this needs a picture"):
        open_pictures(f"llava:{path}?text_only=use", 0, 16)
    with pytest.raises(InputError, match="4 of 64 rows cannot be used"):
        open_pictures(f"llava:{mix(tmp_path, 60, 30, 4)}", 0, 16)


def test_who_takes_text_gets_it_unless_told_otherwise(tmp_path: Path) -> None:
    path = mix(tmp_path, 60, 60)
    source = open_pictures(f"llava:{path}", 0, 16, takes_text=True)
    items = take(source, "train", 200)
    kinds = {item.text_only for item in items}
    assert kinds == {True, False} and text_only(source) == 60
    assert len(items) + len(take(source, "seen", 200)) == 120
    pictured = take_shown(source, "train", 200)
    named = [item.name for item in items if not item.text_only]
    assert [item.name for item in pictured] == named
    assert [item.name for item in take_shown(source, "train", 3)] == named[:3]
    text = next(item for item in items if item.text_only)
    assert text.pictures == () and text.turns[-1] == ("assistant", "Three.")
    assert not any(turn.images for turn in picture_turns(text, "unused"))
    for spec in (f"?image_root={tmp_path}&text_only=skip", "?text_only=skip"):
        skipped = open_pictures(f"llava:{path}{spec}", 0, 16, takes_text=True)
        assert not any(item.text_only for item in take(skipped, "train", 200))
        assert text_only(skipped) == 60
    with pytest.raises(InputError, match="text_only is use or skip"):
        open_pictures(f"llava:{path}?text_only=maybe", 0, 16, takes_text=True)


@pytest.mark.parametrize("pack", [False, True])
def test_batches_hold_both(tmp_path: Path, pack: bool) -> None:
    source = open_pictures(f"llava:{mix(tmp_path, 30, 30)}", 0, 16, takes_text=True)
    layout = Layout(text_codec=text_codec(), template="chatml", mel=MEL, image_positions=2)
    packing = PackConfig(capacity=256) if pack else None
    feed = Feed(source, layout, "unused", batch_size=4, context=200, pack=packing, seed=0)
    seen = set()
    for index in range(8):
        fed = feed.batch(index)
        pictures = sum(len(item.pictures) for item in fed.items)
        assert (0 if fed.batch.pixels is None else len(fed.batch.pixels)) == pictures
        assert int((fed.batch.ids == -1).sum()) == 2 * pictures
        seen |= {item.text_only for item in fed.items}
        assert all(bool((row >= 0).any()) for row in fed.batch.labels)
    assert seen == {True, False} and torch.is_tensor(fed.batch.ids)
