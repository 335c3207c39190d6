"""The loader: one order for any number of ranks, exact shares, exact resuming, no media cut."""

import tempfile
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumoomni.data.packing import PackConfig
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.token_loader import (
    LoaderConfig,
    Order,
    Share,
    TokenLoader,
    permutation,
)
from lumoomni.errors import InputError
from lumoomni.ids import IGNORE
from lumoomni.shapes import POSITIONS, round_up
from lumoomni.uti.grammar import Grammar
from lumoomni.uti.space import TokenSpace, new_space
from lumoomni.uti.tasks import sequence
from tests.shard_folder import Row, row, write_shards
from tests.toy_space import AUDIO, IMAGE, SPACE

PAD = SPACE.special("<|pad_mm|>")


def sample(number: int, task: str) -> Row:
    """A row whose ids tell which one it is."""
    source = np.random.default_rng(number)
    frames = int(source.integers(2, 12))
    text = np.array([number % 100, number // 100, *source.integers(0, 100, number % 9)])
    media = (
        {"image": source.integers(0, 16, 4)}
        if "i" in task
        else {"audio": source.integers(0, 8, 2 * frames), "frames": frames}
    )
    return row(f"{task}:{number:04d}", task, text=text, **media)


ROOM = tempfile.TemporaryDirectory()


@cache
def shards(task: str, count: int, space: TokenSpace = SPACE) -> ShardSet:
    folder = Path(ROOM.name) / f"{task}-{count}-{space.abi}"
    return ShardSet.open(write_shards(folder, space, [sample(i, task) for i in range(count)]))


def share(task: str, count: int = 20, weight: int = 1, **changes: Any) -> Share:
    return Share(shards=shards(task, count), task=task, weight=weight, **changes)


MIXED = [share("a2t", 23, 3), share("i2t", 7, 2), share("t2i", 11, 1)]
CONFIG = LoaderConfig(batch_size=4, context=64, seed=5)


def rows(batch: Any) -> list[list[int]]:
    return [ids[:length].tolist() for ids, length in zip(batch.ids, batch.lengths, strict=True)]


def test_each_epoch_has_every_sample_once_and_another_order() -> None:
    order = Order([17, 5], [2, 1], seed=3)
    drawn = [order(g) for g in range(3 * 17 * 5)]
    for number, size in ((0, 17), (1, 5)):
        mine = [place for which, place in drawn if which == number]
        epochs = [tuple(mine[i : i + size]) for i in range(0, len(mine) - size + 1, size)]
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        # Of five samples some orders come again; of seventeen they must not.
        assert len(set(epochs)) == len(epochs) > 9 if size == 17 else len(set(epochs)) > 9
    assert [Order([17, 5], [2, 1], seed=4)(g) for g in range(50)] != drawn[:50]
    # Seeds and epochs do not run into each other: the second epoch of one is no other's first.
    later = [Order([17], [1], seed=3)(g)[1] for g in range(17, 34)]
    assert later != [Order([17], [1], seed=4)(g)[1] for g in range(17)]
    plain = Order([4], [1], shuffle=False)
    assert [plain(g)[1] for g in range(6)] == [0, 1, 2, 3, 0, 1]


def test_the_permutation_is_the_one_that_is_written_down() -> None:
    # splitmix64 of seed 0 begins e220a839, 6e789e6a, 06c45d18, f88bb8a8, 1b39896a, 53cb9f0c,
    # 2c829abe, c584133a.
    assert permutation(8, 0).tolist() == [2, 4, 6, 5, 1, 7, 0, 3]
    assert sorted(permutation(1000, 7).tolist()) == list(range(1000))


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), min_size=1, max_size=4),
    st.integers(0, 40),
)
def test_shares_are_exact_and_even(parts: list[tuple[int, int]], block: int) -> None:
    weights, sizes = [w for w, _ in parts], [n for _, n in parts]
    order, total = Order(sizes, weights, seed=1), sum(weights)
    drawn = [order(block * total + g)[0] for g in range(total)]
    assert Counter(drawn) == dict(enumerate(weights))
    for upto in range(total):
        for number, weight in enumerate(weights):
            assert abs(drawn[:upto].count(number) - upto * weight / total) < len(weights)


def test_any_number_of_ranks_sees_the_same_order() -> None:
    for pack in (None, PackConfig(capacity=100, window=16)):
        config = replace(CONFIG, pack=pack)
        alone = TokenLoader(MIXED, replace(config, batch_size=8))
        wanted = [row for i in range(4) for row in rows(alone.batch(i))]
        assert len(wanted) == 32 and len(set(map(tuple, wanted))) > 20
        for ranks in (2, 4):
            size = 8 // ranks
            loaders = [
                TokenLoader(MIXED, replace(config, batch_size=size), rank=r, ranks=ranks)
                for r in range(ranks)
            ]
            found = []
            for i in range(4):
                parts = [rows(loader.batch(i)) for loader in loaders]
                found += [parts[r][j] for j in range(size) for r in range(ranks)]
            assert found == wanted


@pytest.mark.parametrize("pack", [None, PackConfig(capacity=100, window=16)])
def test_it_goes_on_exactly_from_every_cut(pack: PackConfig | None) -> None:
    config = replace(CONFIG, pack=pack)
    whole = TokenLoader(MIXED, config).batches()
    batches, states = [], [whole.state]
    for _ in range(8):
        batches.append(next(whole))
        states.append(whole.state)
    whole.close()
    assert states == [4 * i for i in range(9)]
    for cut, state in enumerate(states[:-1]):
        rest = TokenLoader(MIXED, config).batches(state)
        for wanted in batches[cut:]:
            found = next(rest)
            assert torch.equal(found.ids, wanted.ids)
            assert torch.equal(found.labels, wanted.labels)
        assert rest.state == states[-1]
        rest.close()
    # One rank stops, two go on: the next items are the same.
    halves = [TokenLoader(MIXED, replace(config, batch_size=2), rank=r, ranks=2) for r in (0, 1)]
    first, second = (rows(next(half.batches(states[3]))) for half in halves)
    assert [first[0], second[0], first[1], second[1]] == rows(batches[3])


def test_reading_ahead_in_threads_changes_nothing() -> None:
    plain = TokenLoader(MIXED, CONFIG)
    ahead = TokenLoader(MIXED, replace(CONFIG, threads=4, ahead=8)).batches()
    for i in range(12):
        assert torch.equal(next(ahead).ids, plain.batch(i).ids)
        assert ahead.state == 4 * (i + 1)
    ahead.close()


def test_batches_hold_the_sequences_of_the_samples() -> None:
    loader, grammar = TokenLoader(MIXED, CONFIG), Grammar(SPACE)
    batch = loader.batch(3)
    assert batch.ids.shape[1] == round_up(int(batch.lengths.max()), POSITIONS)
    for place_in, number in enumerate(range(12, 16)):
        which, place = loader._order(number)
        task = MIXED[which].task
        stored = MIXED[which].shards.sample("train", int(loader.kept[which].index[place]))
        made, length = sequence(task, stored, SPACE, limit=64), int(batch.lengths[place_in])
        assert batch.ids[place_in, :length].tolist() == made.ids.tolist()
        assert batch.labels[place_in, :length].tolist() == made.labels.tolist()
        assert (batch.ids[place_in, length:] == PAD).all() and grammar.check(
            batch.ids[place_in]
        ) == ""
        assert (batch.labels[place_in, length:] == IGNORE).all()


@settings(max_examples=20)
@given(st.integers(0, 30))
def test_packed_rows_hold_every_sample_of_a_window_once(seed: int) -> None:
    pack = PackConfig(capacity=90, window=12)
    loader = TokenLoader(MIXED, replace(CONFIG, pack=pack, seed=seed, batch_size=1))
    seen: list[int] = []
    number = 0
    while len(seen) < 36:
        seen += loader.items(number)
        number += 1
    assert sorted(seen) == list(range(36))
    batch = loader.batch(0)
    documents = batch.documents
    assert documents is not None and batch.ids.shape[1] <= round_up(90, POSITIONS)
    for number, item in enumerate(loader.items(0)):
        where = documents[0, : int(batch.lengths[0])] == number
        mine = batch.ids[0, : int(batch.lengths[0])][where]
        assert mine.tolist() == loader.item(item).ids.tolist()


def test_what_does_not_fit_is_counted_and_left_out() -> None:
    spoken, drawn = share("t2a", 30), share("a2t", 30)
    tight = TokenLoader([spoken, drawn], replace(CONFIG, context=24))
    for kept, one in zip(tight.kept, (spoken, drawn), strict=True):
        stored = [one.shards.sample("train", i) for i in range(30)]
        made = [sequence(one.task, each, SPACE) for each in stored]
        media = [5 + len(each.audio) for each in stored]  # markers and request, without text
        if one.task == "t2a":
            assert (kept.cut, kept.dropped) == (0, sum(len(m) > 24 for m in made))
        else:
            assert kept.dropped == sum(m + 1 > 24 for m in media) > 0
            assert kept.cut == sum(len(m) > 24 for m in made) - kept.dropped > 0
        assert len(kept.index) + kept.dropped == 30 and kept.lacking == 0
        assert kept.lengths.max() <= 24
    for i in range(10):
        assert max(map(len, rows(tight.batch(i)))) <= 24
    with pytest.raises(InputError, match=r"30 are records of t2a and none fits 5 ids"):
        TokenLoader([spoken], replace(CONFIG, context=5))


def test_records_of_another_task_are_turned_round() -> None:
    spoken = TokenLoader([share("a2t", 6)], CONFIG)
    turned = Share(shards=spoken.shares[0].shards, task="t2a", records=("a2t",))
    assert len(TokenLoader([turned], CONFIG).kept[0].index) == 6
    with pytest.raises(InputError, match=r"0 are records of t2a"):
        TokenLoader([replace(turned, records=())], CONFIG)
    with pytest.raises(InputError, match=r"none fits 64 ids as t2i"):
        TokenLoader([replace(turned, task="t2i")], CONFIG)


def test_wrong_settings_are_refused() -> None:
    other = shards("a2t", 3, new_space(101, "t", (IMAGE, AUDIO)))
    with pytest.raises(InputError, match=r"share 1 \(a2t\) was made in token space"):
        TokenLoader([share("a2t"), Share(shards=other, task="a2t")], CONFIG)
    with pytest.raises(InputError, match="no rank 2 of 2"):
        TokenLoader(MIXED, CONFIG, rank=2, ranks=2)
    with pytest.raises(InputError, match="at least one"):
        TokenLoader([], CONFIG)
    with pytest.raises(InputError, match="whole number of at least 1"):
        TokenLoader([share("a2t", weight=0)], CONFIG)
    with pytest.raises(InputError, match="no split 'eval'"):
        TokenLoader([share("a2t", split="eval")], CONFIG)
    with pytest.raises(InputError, match="is no place"):
        TokenLoader(MIXED, CONFIG).batches(-1)
    with pytest.raises(InputError, match="do not fit rows of 10"):
        LoaderConfig(context=20, pack=PackConfig(capacity=10))
    with pytest.raises(InputError, match="at least 1"):
        LoaderConfig(threads=0)


def test_some_requests_for_media_say_nothing_and_only_those() -> None:
    drawn = [share("t2i", 40), share("i2t", 40)]
    plain = TokenLoader(drawn, CONFIG)
    quiet = TokenLoader(drawn, replace(CONFIG, unsaid=0.3))
    grammar = Grammar(SPACE)
    empty = 0
    for number in range(200):
        whole, made = plain.item(number), quiet.item(number)
        if np.array_equal(whole.ids, made.ids):
            continue
        empty += 1
        # The two markers of the text, what is asked for, the picture with its two markers.
        assert len(made.ids) == 2 + 1 + 6 and grammar.check(made.ids.tolist()) == ""
        assert plain.shares[plain._order(number)[0]].task == "t2i"
        target = whole.labels[whole.labels != IGNORE]
        assert np.array_equal(made.labels[made.labels != IGNORE], target)
    assert 20 <= empty <= 40  # of 100 pictures that are asked for
    again = TokenLoader(drawn, replace(CONFIG, unsaid=0.3))
    assert all(np.array_equal(again.item(i).ids, quiet.item(i).ids) for i in (7, 3, 150))
    every = TokenLoader([share("t2a", 20)], replace(CONFIG, unsaid=1.0))
    assert all(every.item(i).ids[1] == SPACE.special("<|text_end|>") for i in range(20))
    with pytest.raises(InputError, match="unsaid is 2"):
        replace(CONFIG, unsaid=2.0)
