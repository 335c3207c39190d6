"""Retrieval and probes: right on what is right, near chance on planted faults."""

from collections.abc import Sequence

import torch

from lumoomni.audits.vision import ATTRIBUTES, probe, recall_at_one
from lumoomni.data.world.scene import Scene, make_scene
from lumoomni.gates import Check, Report, judge


def unit(count: int, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def test_pictures_paired_with_the_next_caption_fail_the_gate() -> None:
    """Unpaired data: every picture beside its neighbour's caption."""
    images = unit(100)
    check = Check(metric="image_to_text", op=">=", threshold=0.9, min_n=100, why="pairs")
    right = recall_at_one(images, images)
    assert right["image_to_text"].value == right["text_to_image"].value == 1.0
    assert judge(Report(metrics=right), (check,)).passed
    shifted = recall_at_one(images, images.roll(1, 0))
    assert shifted["image_to_text"].value == 0.0
    assert not judge(Report(metrics=shifted), (check,)).passed


def scenes(split: str, first: int, count: int) -> list[Scene]:
    return [make_scene(0, split, first + i, count=1) for i in range(count)]


def truth(batch: Sequence[Scene]) -> torch.Tensor:
    """One-hot attributes: features in which everything is plain."""
    rows = []
    for scene in batch:
        thing, row = scene.things[0], []
        for name, values in ATTRIBUTES.items():
            row += [float(value == getattr(thing, name)) for value in values]
        rows.append(row)
    return torch.tensor(rows)


def test_the_probe_reads_what_is_there_and_nothing_from_noise() -> None:
    train, held = scenes("train", 0, 300), scenes("seen", 0, 200)
    assert all(metric.value == 1.0 for metric in probe(truth, train, held).values())
    noise = probe(lambda batch: unit(len(batch), seed=len(batch)), train, held)
    assert noise["colour"].value < 0.3 and noise["shape"].value < 0.5


def test_a_tower_that_is_blind_to_one_attribute_is_told_by_that_attribute() -> None:
    train, held = scenes("train", 0, 300), scenes("seen", 0, 200)
    shapes = slice(8, 12)

    def blind(batch: Sequence[Scene]) -> torch.Tensor:
        features = truth(batch)
        features[:, shapes] = 0.0
        return features

    found = probe(blind, train, held)
    assert found["colour"].value == found["size"].value == 1.0
    assert found["shape"].value < 0.7
