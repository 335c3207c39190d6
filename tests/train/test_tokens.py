"""Rows learn what their codes mean beside a frozen Thinker, and the scores show that they look.

Pictures of four codes; the text names the first one. A Thinker that knew no codes learns to say it
through new rows alone.
"""

import copy
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from lumoomni.audits.token_lm import CONDITIONS, Frequencies, compose, score_task
from lumoomni.codecs.facts import CodecFacts
from lumoomni.data.conversation import Batch, Encoded, collate
from lumoomni.errors import InputError
from lumoomni.ids import IGNORE
from lumoomni.model.rows import Rows, RowsConfig, RowThinker, start_from_text
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.runtime import Progress
from lumoomni.train.freeze import fingerprint, freeze
from lumoomni.train.loop import FitSite, LoopConfig, fit
from lumoomni.train.optim import OptimConfig
from lumoomni.train.tokens import Hold, Kinds, TokenTask
from lumoomni.uti.grammar import PAD, Grammar
from lumoomni.uti.sequence import Sequence as Ids
from lumoomni.uti.space import TokenSpace, new_space
from lumoomni.uti.tasks import Composer, parts_of

TEXT, BOOK, TILES = 24, 6, 4
NONE = np.zeros(0, np.int32)


def space() -> TokenSpace:
    picture = CodecFacts(
        kind="image", name="p", weights="0", codebooks=1, codebook_size=BOOK, tokens=TILES
    )
    return new_space(TEXT, "t", (picture,))


@dataclass(frozen=True)
class Toy:
    id: str
    text: np.ndarray
    image: np.ndarray
    prompt: np.ndarray = field(default_factory=lambda: NONE)
    audio: np.ndarray = field(default_factory=lambda: NONE)


def toy(index: int) -> Toy:
    codes = np.random.default_rng(index).integers(0, BOOK, TILES)
    return Toy(str(index), np.array([2 + codes[0]], np.int32), codes.astype(np.int32))


def made() -> RowThinker:
    torch.manual_seed(0)
    config = ThinkerConfig(
        vocab_size=TEXT, width=32, layers=2, heads=2, kv_heads=1, head_width=16, ffn_width=64
    )
    thinker = Thinker(config)
    thinker.init_weights(0.15)
    rows = Rows(RowsConfig(start=TEXT, count=len(space().new_rows), width=32))
    start_from_text(rows, thinker, seed=1)
    return RowThinker(freeze(thinker), rows)  # type: ignore[arg-type]


def batch(index: int, task: str = "i2t") -> Batch:
    composer = Composer(space())
    rows = [composer.sequence(task, toy(1000 + 16 * index + i)) for i in range(16)]
    return collate([Encoded(sequence=one, pixels=(), mels=()) for one in rows])


def test_rows_alone_learn_and_scores_see_it(tmp_path: Path) -> None:
    model = made()
    before, held = fingerprint(model.thinker), [toy(i) for i in range(60)]
    known = Frequencies(space()).learn(
        [Composer(space()).sequence("i2t", toy(1000 + i)) for i in range(200)]
    )
    untrained = score_task(model, space(), "i2t", held, known).metrics()
    task = TokenTask(model, space(), batch)
    assert list(task.modules) == ["rows"]
    site = FitSite(
        name="toy",
        work=tmp_path,
        progress=Progress(silent=True),
        log=lambda entry: None,
        stop=threading.Event(),
    )
    fit(
        task,
        LoopConfig(steps=150, batch_size=16),
        OptimConfig(lr=0.02, weight_decay=0.0, warmup=5),
        site,
    )
    assert fingerprint(model.thinker) == before
    found = score_task(model, space(), "i2t", held, known).metrics()
    assert found["tokens.i2t.loss"].value < 0.5 * untrained["tokens.i2t.loss"].value
    gain = found["tokens.i2t.swapped_over_correct"]
    assert gain.low is not None and gain.low > 0
    low = untrained["tokens.i2t.swapped_over_correct"].low
    assert low is not None and low < 0.05
    assert found["tokens.i2t.wins_over_swapped"].value > 0.7
    assert found["tokens.i2t.unigram"].value < found["tokens.i2t.uniform"].value


def test_losses_are_told_by_what_is_predicted() -> None:
    model, one = made(), batch(0, "t2i")
    step = TokenTask(model, space(), batch).loss(one)
    assert set(step.parts) == {"marks", "image"}
    assert sum(step.parts.values()) == pytest.approx(float(step.total.detach()), rel=1e-5)
    kinds = Kinds(space())
    ids = torch.tensor([0, TEXT - 1, TEXT, TEXT + 63, TEXT + 64, TEXT + 64 + BOOK - 1])
    assert [kinds.names[i] for i in kinds.of(ids)] == [
        *("text", "text", "marks", "marks", "image", "image")
    ]


def test_chance_and_frequencies_are_those_of_the_range() -> None:
    ids = space()
    known = Frequencies(ids)
    one = Composer(ids).sequence("t2i", toy(0))
    uniform, unigram = known.nats(one)
    assert uniform == pytest.approx(TILES * np.log(BOOK))
    assert unigram == pytest.approx(uniform)  # nothing was counted yet
    known.learn([one] * 50)
    assert known.nats(one)[1] < unigram


def test_conditions_keep_the_target_and_obey_the_grammar() -> None:
    ids, samples = space(), [toy(i) for i in range(8)]
    scores = score_task(made(), ids, "t2i", samples, Frequencies(ids))
    assert tuple(scores.losses) == CONDITIONS
    assert scores.counts == [TILES + 2] * 8
    parts = [p if p.target else type(p)(p.kind, p.codes[:0]) for p in parts_of("t2i", samples[0])]
    empty = compose(Composer(ids), parts)
    assert Grammar(ids).check(empty.ids.tolist()) == ""
    whole = Composer(ids).sequence("t2i", samples[0])
    assert empty.ids.tolist() == [*whole.ids[:1], *whole.ids[2:]]
    assert (empty.labels != IGNORE).sum() == TILES + 2
    with pytest.raises(ValueError, match="no sample"):
        score_task(made(), ids, "t2i", [], Frequencies(ids))


def test_what_fits_in_no_condition_is_left_out_of_all() -> None:
    """One long text is lent to another sample, too: neither is scored, and none is cut."""
    ids, samples = space(), [toy(i) for i in range(8)]
    samples[3] = Toy("3", np.full(9, 2, np.int32), samples[3].image)
    limit = len(Composer(ids).sequence("t2i", samples[0]).ids)
    scores = score_task(made(), ids, "t2i", samples, Frequencies(ids), limit=limit)
    assert [len(rows) for rows in scores.losses.values()] == [6, 6, 6]
    assert scores.counts == [TILES + 2] * 6
    with pytest.raises(InputError, match=f"fits into {limit - 1} ids, the shortest takes {limit}"):
        score_task(made(), ids, "t2i", samples, Frequencies(ids), limit=limit - 1)


def test_text_can_weigh_more_and_sums_stay_as_they_are() -> None:
    model, one = made(), batch(0, "i2t")
    plain, heavy = (TokenTask(model, space(), batch, text_weight=w).loss(one) for w in (1.0, 3.0))
    assert plain.parts == pytest.approx(heavy.parts, rel=1e-5)
    more = float(heavy.total.detach() - plain.total.detach())
    assert more == pytest.approx(2 * plain.parts["text"], rel=1e-4) and more > 0


def test_states_of_text_alone_are_held() -> None:
    model = made()
    before = freeze(copy.deepcopy(model.thinker))
    rows = [
        Encoded(sequence=Ids(said, said, (), ()), pixels=(), mels=())
        for said in [np.array([0, 1, 1])] * 3
    ]
    text, pictures = collate(rows, space().special(PAD)), batch(0, "i2t")
    hold = Hold(before, 5.0)  # type: ignore[arg-type]
    free, held = (TokenTask(model, space(), batch, hold=how) for how in (None, hold))
    with torch.no_grad():
        same = [float(one.loss(text).total) for one in (held, free)]
        assert same[0] == pytest.approx(same[1], abs=1e-4)
        for parameter in model.thinker.blocks.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    found = held.loss(text)
    gap = float((found.total - free.loss(text).total).detach())
    assert gap == pytest.approx(5 * found.parts["held"], rel=1e-3) and gap > 0.1
    assert held.loss(pictures).parts["held"] == 0


def test_sources_that_are_all_alike_are_told_in_a_sentence() -> None:
    same = [Toy(str(i), np.array([2], np.int32), np.zeros(TILES, np.int32)) for i in range(20)]
    with pytest.raises(InputError, match="all 20 held-out samples of i2t have the same source"):
        score_task(made(), space(), "i2t", same, Frequencies(space()))
