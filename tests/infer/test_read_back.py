"""What is read back: a model that knows which picture belongs to which word finds the right one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lumoomni.infer import draw
from lumoomni.infer.draw import Artist, DrawConfig
from lumoomni.infer.read_back import read_back
from lumoomni.uti.grammar import Grammar
from lumoomni.uti.interface import TokenSpan
from lumoomni.uti.tasks import Composer, Part
from tests.infer.test_compose import TILES, made, space


def span(kind: str, *codes: int) -> TokenSpan:
    start = {"text": 0, "image": space().books("image")[0].start}[kind]
    return TokenSpan(kind, np.array(codes, dtype=np.int64) + start)


def test_scores_are_those_of_the_text_given_the_picture() -> None:
    model, composer = made(short_conv=3), Composer(space())
    texts = [span("text", 4, 9, 2), span("text", 7), span("text")]
    codes = [[1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0], [8, 7, 6, 5, 4, 3]]
    shown = []
    for one in codes:
        parts = [Part("image", np.array(one)), Part("text", np.array([1]), target=True)]
        shown.append(composer.compose(parts).ids[:-3].tolist())
    found = read_back(model, space(), texts, shown)
    assert found.shape == (3,) and found[2] == 0
    text, end = space().named("TEXT"), space().special("<|text_end|>")
    for k in (0, 1):
        parts = [Part("image", np.array(codes[k])), Part("text", texts[k].ids, target=True)]
        ids = torch.from_numpy(composer.compose(parts).ids)
        with torch.no_grad():
            logits = model.head(model.thinker(model.embed(ids[None])).hidden[0]).float()
        # What may stand there alone: text, or its end.
        legal = torch.full((logits.shape[-1],), -torch.inf)
        legal[text.start : text.end + 1] = 0.0
        legal[end] = 0.0
        chosen = (logits + legal).log_softmax(-1)
        first = len(ids) - len(texts[k].ids) - 1
        wanted = sum(float(chosen[t - 1, ids[t]]) for t in range(first, len(ids)))
        assert found[k] == pytest.approx(wanted, rel=1e-4)


def test_the_best_of_each_prompts_tries_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def likes_the_highest(model, space, texts, shown):  # type: ignore[no-untyped-def]
        asked.append((len(texts), len(shown)))
        return np.array([float(sum(one)) for one in shown])

    monkeypatch.setattr(draw, "read_back", likes_the_highest)
    artist = object.__new__(Artist)
    words = [span("text", 1), span("text", 2)]
    stub = type("Interface", (), {"space": space(), "grammar": Grammar(space())})()
    for name, value in (("model", made()), ("uti", stub), ("unproven", ())):
        object.__setattr__(artist, name, value)
    how = DrawConfig(tries=3, seed=1)
    many = [one for one in words for _ in range(3)]
    every = artist._composed("image", many, how, likely=False)
    best = artist._best("image", words, every, 3)
    assert asked == [(6, 6)]
    sums = np.array([sum(one.ids[1:-1]) for one in every]).reshape(2, 3)
    assert [sum(one.ids[1:-1]) for one in best] == sums.max(1).tolist()
    # How likely a picture is of its words counts as much as how likely these are of it.
    worst = [int(one) for one in sums.argmin(1)]
    gap = float((sums.max(1) - sums.min(1)).max())
    for more in (0.0, gap + 0.5):
        scored = [
            replace(one, likely=more if k % 3 == worst[k // 3] else 0.0)
            for k, one in enumerate(every)
        ]
        best = artist._best("image", words, scored, 3)
        kept = sums.min(1) if more else sums.max(1)
        assert [sum(one.ids[1:-1]) for one in best] == kept.tolist()
    likely = artist._composed("image", many, how, likely=True)
    assert [one.ids for one in likely] == [one.ids for one in every] and likely[0].likely < 0
    assert all(len(one.ids) == TILES + 2 for one in best)
    with pytest.raises(ValueError, match="tries 0"):
        DrawConfig(tries=0)
