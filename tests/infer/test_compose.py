"""What is composed fits the grammar, whoever else is asked, and costs no illegal row."""

from dataclasses import replace

import pytest
import torch

from lumoomni.codecs.facts import CodecFacts
from lumoomni.errors import InputError
from lumoomni.infer.compose import ComposeConfig, compose
from lumoomni.infer.sampling import SamplingConfig
from lumoomni.model.rows import Rows, RowsConfig, RowThinker
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.uti.grammar import Grammar
from lumoomni.uti.space import TokenSpace, new_space

TEXT, TILES = 32, 6


def space() -> TokenSpace:
    picture = CodecFacts(
        kind="image", name="p", weights="0", codebooks=1, codebook_size=9, tokens=TILES
    )
    sound = CodecFacts(
        kind="audio",
        name="s",
        weights="0",
        codebooks=2,
        codebook_size=5,
        frame_rate=25.0,
        sample_rate=16000,
    )
    return new_space(TEXT, "t", (picture, sound))


def made(most_positions: int = 128, short_conv: int = 0) -> RowThinker:
    torch.manual_seed(0)
    config = ThinkerConfig(
        vocab_size=TEXT,
        width=32,
        layers=2,
        heads=2,
        kv_heads=1,
        head_width=16,
        ffn_width=48,
        max_positions=most_positions,
        short_conv=short_conv,
        tied=False,  # a tied head of random rows says its last id again, whatever was asked
    )
    markers = space().named("SPECIAL").size
    shape = RowsConfig(
        start=TEXT, count=len(space().new_rows), width=32, tied=False, markers=markers
    )
    rows = Rows(shape)
    torch.nn.init.normal_(rows.row_table)
    torch.nn.init.normal_(rows.row_head)  # type: ignore[arg-type]
    thinker = Thinker(config).eval()
    thinker.init_weights(0.5)  # loud enough that what was asked changes what is chosen
    return RowThinker(thinker, rows)


def request(kind: str, words: list[int]) -> list[int]:
    one = space().special
    return [one("<|text_start|>"), *words, one("<|text_end|>"), one(f"<|gen_{kind}|>")]


SAMPLED = SamplingConfig(temperature=1.0)


@pytest.mark.parametrize("kind", ["img", "aud", "text"])
@pytest.mark.parametrize("sampling", [SamplingConfig(), SAMPLED])
def test_every_answer_is_legal_and_whole(kind: str, sampling: SamplingConfig) -> None:
    grammar, model = Grammar(space()), made()
    asked = [request(kind, [1, 2, 3]), request(kind, [4])]
    for seed in range(4):
        config = ComposeConfig(sampling=sampling, most=7, seed=seed)
        for ids, got in zip(asked, compose(model, grammar, asked, config), strict=True):
            assert grammar.check([*ids, *got.ids]) == ""
            inside = len(got.ids) - 2
            assert inside == TILES if kind == "img" else inside <= 8
            assert kind != "aud" or (inside >= 2 and inside % 2 == 0)


@pytest.mark.parametrize("short_conv", [0, 3])
@pytest.mark.parametrize("kind", ["img", "aud"])
def test_company_changes_nothing(kind: str, short_conv: int) -> None:
    grammar, model = Grammar(space()), made(short_conv=short_conv)
    asked = [request(kind, [1, 2, 3, 9]), request(kind, [4]), request(kind, [5, 6])]
    config = ComposeConfig(most=8)
    together = compose(model, grammar, asked, config)
    alone = [compose(model, grammar, [ids], config)[0] for ids in asked]
    assert [one.ids for one in together] == [one.ids for one in alone]
    # The first id is what the whole model says, restricted to the legal rows.
    start = space().special("<|img_start|>" if kind == "img" else "<|aud_start|>")
    ids = torch.tensor([[*asked[0], start]])
    logits = model.head(model.thinker(model.embed(ids)).hidden[0, -1])
    book = space().books("image" if kind == "img" else "audio")[0]
    best = book.start + int(logits[book.start : book.end + 1].argmax())
    assert together[0].ids[:2] == [start, best]


def test_guidance_is_what_its_formula_says() -> None:
    grammar, model = Grammar(space()), made()
    asked, empty = [request("img", [1, 2]), request("img", [3])], request("img", [])
    plain = compose(model, grammar, asked, ComposeConfig())
    assert compose(model, grammar, asked, ComposeConfig(guidance=1.0), empty=empty) == plain
    none = compose(model, grammar, asked, ComposeConfig(guidance=0.0), empty=empty)
    unasked = compose(model, grammar, [empty], ComposeConfig())
    assert [one.ids for one in none] == [unasked[0].ids] * 2
    assert plain[0].ids != unasked[0].ids and plain[1].ids != unasked[0].ids
    strong = compose(model, grammar, asked, ComposeConfig(guidance=4.0), empty=empty)
    start = space().special("<|img_start|>")

    def last(ids: list[int]) -> torch.Tensor:
        return model.head(model.thinker(model.embed(torch.tensor([[*ids, start]]))).hidden[0, -1])

    book = space().books("image")[0]
    mixed = last(empty) + 4 * (last(asked[0]) - last(empty))
    assert strong[0].ids[1] == book.start + int(mixed[book.start : book.end + 1].argmax())
    with pytest.raises(InputError, match="compares with an empty request"):
        compose(model, grammar, asked, ComposeConfig(guidance=2.0))


def test_pressure_is_the_probability_that_the_grammar_took() -> None:
    grammar, model = Grammar(space()), made()
    asked = [request("img", [1])]
    got = compose(model, grammar, asked, ComposeConfig(watch=True))[0]
    ids = torch.tensor([[*asked[0], *got.ids]])
    shares = model.head(model.thinker(model.embed(ids)).hidden[0]).softmax(-1)
    book, taken = space().books("image")[0], []
    for place, token in enumerate(got.ids):
        before = shares[len(asked[0]) - 1 + place]
        inside = token in book
        legal = before[book.start : book.end + 1].sum() if inside else before[token]
        taken.append(1 - float(legal.detach()))
    assert got.pressure == pytest.approx(sum(taken) / len(taken), abs=1e-5)
    assert compose(model, grammar, asked, ComposeConfig())[0].pressure is None


def test_the_same_seed_draws_the_same_and_others_draw_others() -> None:
    grammar, model = Grammar(space()), made()
    asked = [request("img", [1, 2])]
    drawn = [
        tuple(compose(model, grammar, asked, ComposeConfig(sampling=SAMPLED, seed=s))[0].ids)
        for s in (0, 0, 1, 2)
    ]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1


def test_requests_that_cannot_be_met_are_refused() -> None:
    grammar = Grammar(space())
    with pytest.raises(InputError, match="must end with the same"):
        compose(made(), grammar, [request("img", [1]), request("aud", [1])], ComposeConfig())
    with pytest.raises(InputError, match="must end with the same"):
        compose(made(), grammar, [[1, 2]], ComposeConfig())
    with pytest.raises(InputError, match="need 12 positions, the Thinker has 8"):
        compose(made(8), grammar, [request("img", [1])], ComposeConfig())


def test_pressure_is_that_of_what_is_said_and_not_of_what_follows_its_end() -> None:
    grammar, model = Grammar(space()), made()
    ends: dict[int, list[int]] = {}
    for word in range(24):
        asked = request("text", [word])
        (one,) = compose(model, grammar, [asked], ComposeConfig(most=12))
        ends.setdefault(len(one.ids), asked)
    assert len(ends) > 1, "all answers are as long as each other, and nothing is tested"
    both = [ends[min(ends)], ends[max(ends)]]
    watched = ComposeConfig(most=12, watch=True)
    alone = [compose(model, grammar, [one], watched)[0] for one in both]
    together = compose(model, grammar, both, watched)
    assert [one.ids for one in together] == [one.ids for one in alone]
    counts = [len(one.ids) for one in alone]
    assert counts[0] < counts[1]
    wanted = sum(one.pressure * n for one, n in zip(alone, counts, strict=True)) / sum(counts)  # type: ignore[operator]
    assert together[0].pressure == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["img", "aud", "text"])
def test_how_likely_an_answer_was_is_what_the_model_says_of_it(kind: str, guidance: float) -> None:
    """Of its own request, whatever guidance and temperature it was chosen by."""
    grammar, model = Grammar(space()), made()
    asked, empty = [request(kind, [1, 2, 3]), request(kind, [4])], request(kind, [])
    sampling = SamplingConfig(temperature=2.0)
    config = ComposeConfig(sampling=sampling, guidance=guidance, most=6, likely=True)
    found = compose(model, grammar, asked, config, empty=empty)
    assert found[0].likely != found[1].likely
    for ids, got in zip(asked, found, strict=True):
        want, state = 0.0, grammar.run(ids)
        for place, chosen in enumerate(got.ids):
            ranges = grammar.legal(state)
            end = got.ids[-1]
            if (
                kind != "img"
                and state.inside >= config.most
                and any(r.start == end for r in ranges)
            ):
                break  # there it had to end
            legal = torch.cat([torch.arange(r.start, r.end + 1) for r in ranges])
            shown = torch.tensor([[*ids, *got.ids[:place]]])
            with torch.no_grad():
                logits = model.head(model.thinker(model.embed(shown)).hidden[0, -1])[legal]
            want += float(logits.log_softmax(-1)[(legal == chosen).nonzero()[0, 0]])
            state = grammar.step(state, chosen) if chosen != end else state
        assert got.likely == pytest.approx(want, abs=2e-3) and want < -0.5
    unasked = compose(model, grammar, asked, replace(config, likely=False), empty=empty)
    assert [one.ids for one in unasked] == [one.ids for one in found]
    assert all(one.likely == 0 for one in unasked)
