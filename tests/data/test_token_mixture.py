"""Mixtures of tasks and text: exact shares, one after the other, from shards that have them."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumoomni.data.conversation import Encoded
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.token_loader import LoaderConfig
from lumoomni.data.token_mixture import Curriculum, TokenMix, TokenMixture, records_for, shares_of
from lumoomni.errors import InputError
from lumoomni.uti.sequence import Sequence
from tests.shard_folder import Row, row, write_shards
from tests.toy_space import SPACE

HOW = LoaderConfig(context=64, seed=2)


def picture(number: int, task: str = "t2i") -> Row:
    text = np.array([number % 100, 1, 2])
    return row(f"{task}:{number:04d}", task, text=text, image=np.full(4, number % 16))


def shards(folder: Path, *rows: Row) -> ShardSet:
    return ShardSet.open(write_shards(folder, SPACE, list(rows)))


def told(index: int) -> Encoded:
    ids = np.array([99, index])
    return Encoded(sequence=Sequence(ids, ids, (), ()), pixels=(), mels=())


def kind(made: Encoded) -> str:
    ids = made.sequence.ids
    if ids[0] == 99:
        return "text"
    return "i2t" if ids[0] == SPACE.special("<|img_start|>") else "t2i"


def test_every_block_has_its_weights_and_both_ways_come_of_the_same_records(tmp_path: Path) -> None:
    some = shards(tmp_path, *(picture(i) for i in range(30)))
    mixture = TokenMixture([some], TokenMix(t2i=3, i2t=1, text=2), HOW, told)
    assert Counter(kind(mixture(i)) for i in range(60)) == {"t2i": 30, "i2t": 10, "text": 20}
    texts = [int(made.sequence.ids[1]) for i in range(60) if kind(made := mixture(i)) == "text"]
    assert sorted(texts) == list(range(20))
    again = TokenMixture([some], TokenMix(t2i=3, i2t=1, text=2), HOW, told)
    for i in (59, 4, 31):
        assert np.array_equal(mixture(i).sequence.ids, again(i).sequence.ids)


def test_sets_share_a_task_by_their_sizes(tmp_path: Path) -> None:
    small = shards(tmp_path / "a", *(picture(i) for i in range(10)))
    large = shards(tmp_path / "b", *(picture(i) for i in range(30)))
    weights = [one.weight for one in shares_of([small, large], "t2i", 2)]
    assert weights == [8, 24]
    tiny = shards(tmp_path / "c", picture(0))
    assert [one.weight for one in shares_of([tiny, large], "t2i", 1)] == [1, 15]


def test_a_task_without_samples_is_refused(tmp_path: Path) -> None:
    some = shards(tmp_path, picture(0), picture(1, "i2t"))
    assert records_for(some, "i2t") == "i2t" and records_for(some, "a2t") == ""
    with pytest.raises(InputError, match="no shard has samples of t2a"):
        TokenMixture([some], TokenMix(t2a=1), HOW)
    with pytest.raises(InputError, match="without a source of text"):
        TokenMixture([some], TokenMix(t2i=1, text=1), HOW)
    wrong: list[dict[str, Any]] = [{}, {"t2i": -1}]
    for weights in wrong:
        with pytest.raises(InputError, match="weights are"):
            TokenMix(**weights)


def test_one_mixture_follows_another() -> None:
    def other(index: int) -> Encoded:
        return told(index + 1000)

    both = Curriculum(told, other, 5)
    assert [int(both(i).sequence.ids[1]) for i in (0, 4, 5, 6)] == [0, 4, 1005, 1006]
