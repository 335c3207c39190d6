"""Two sets of matrices: text alone stays to the bit, equal ones change nothing, each its own."""

import copy

import pytest
import torch

from lumoomni.errors import InputError
from lumoomni.infer.compose import ComposeConfig, compose
from lumoomni.infer.sampling import SamplingConfig
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.moe import MoEConfig
from lumoomni.model.routed import Routed, RoutedThinker, matrices, new_maker, route_of
from lumoomni.model.rows import Rows, RowsConfig, RowThinker
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.uti.grammar import Grammar
from tests.infer.test_compose import TEXT, made, request, space


def routed(changed: bool = True, short_conv: int = 3) -> RowThinker:
    """A Thinker and rows, with a maker whose matrices are others."""
    plain = made(short_conv=short_conv)
    maker = new_maker(plain.thinker)
    if changed:
        torch.manual_seed(5)
        with torch.no_grad():
            for matrix in matrices(maker).parameters():
                matrix.add_(0.3 * torch.randn_like(matrix))
            # The Thinker learns too: whatever the maker has not of its own it must not keep.
            for parameter in plain.thinker.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return RowThinker(plain.thinker, plain.rows, maker).eval()


def mixed() -> torch.Tensor:
    torch.manual_seed(2)
    ids = torch.randint(0, TEXT, (3, 9))
    ids[0, 3:7] += TEXT
    ids[1, 0] = TEXT + 1
    return ids


@torch.no_grad()
def test_equal_matrices_change_nothing_and_text_alone_never_meets_the_maker() -> None:
    same, other, ids = routed(changed=False), routed(), mixed()
    spec = AttentionSpec(lengths=torch.tensor([9, 7, 5]))
    want = same.thinker(same.embed(ids), attention=spec).hidden
    real = torch.arange(9) < torch.tensor([9, 7, 5])[:, None]
    torch.testing.assert_close(same(ids, spec).hidden[real], want[real])
    assert (other(ids, spec).hidden[:2] - want[:2]).abs().max() > 0.1
    text = ids[2:]
    plain = other.thinker(other.embed(text)).hidden
    assert torch.equal(other(text).hidden, plain)


@torch.no_grad()
def test_what_comes_before_the_first_new_id_is_the_thinkers_and_new_ids_alone_the_makers() -> None:
    model, ids = routed(), mixed()
    found = model(ids).hidden
    plain = model.thinker(model.embed(ids)).hidden
    torch.testing.assert_close(found[0, :3], plain[0, :3])
    assert (found[0, 3:] - plain[0, 3:]).abs().amax(-1).min() > 1e-3
    new = ids[:1, 3:7]
    assert model.maker is not None
    torch.testing.assert_close(model(new).hidden, model.maker(model.embed(new)).hidden)


@torch.no_grad()
def test_what_follows_media_is_the_makers_and_what_asks_for_them_the_thinkers() -> None:
    model, codes = routed(), space().named("IMAGE").start
    marker = TEXT + 1
    ids = torch.tensor(
        [[1, marker, 2, 3, codes, codes + 1, marker, 4, 5], [1, marker, 2, 3, 4, 5, marker, 6, 7]]
    )
    after = model.after_media(ids)
    assert after.tolist() == [[False] * 4 + [True] * 5, [False] * 9]
    documents = torch.tensor([[0] * 7 + [1, 1], [0] * 9])
    apart = model.after_media(ids, AttentionSpec(documents=documents))
    assert apart.tolist() == [[False] * 4 + [True] * 3 + [False] * 2, [False] * 9]
    assert model.maker is not None
    both = model.maker.blocks[0].ffn.down.weight  # type: ignore[union-attr]
    before = model(ids).hidden
    both.mul_(2)
    moved = (model(ids).hidden - before).abs().amax(-1) > 1e-4
    assert moved.tolist() == [[False] + [True] * 8, [False] + [True] * 8]  # through the markers
    both.div_(2)
    model.thinker.blocks[0].ffn.down.weight.mul_(2)  # type: ignore[union-attr, operator]
    alone = model(ids[:1, 4:]).hidden
    model.thinker.blocks[0].ffn.down.weight.div_(2)  # type: ignore[union-attr, operator]
    torch.testing.assert_close(model(ids[:1, 4:]).hidden, alone)
    cache = model.thinker.new_cache(2, 20)
    model(ids, None, cache)
    with pytest.raises(ValueError, match="9 positions are cached"):
        model(ids[:, :1], None, cache)


def shown(codes: list[int]) -> list[int]:
    one, first = space().special, space().named("IMAGE").start
    ids = [first + k for k in codes]
    return [one("<|img_start|>"), *ids, one("<|img_end|>"), one("<|gen_text|>")]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["img", "aud", "text", "read"])
def test_composed_step_by_step_as_read_at_once(kind: str) -> None:
    model, grammar = routed(), Grammar(space())
    asked = [request(kind, [1, 2, 3]), request(kind, [4])] if kind != "read" else []
    asked = asked or [shown([1, 2, 3, 4, 5, 6]), shown([8, 7, 6, 5, 4, 3])]
    for one in asked:
        (got,) = compose(model, grammar, [one], ComposeConfig(most=6))
        ids = torch.tensor([[*one, *got.ids]])
        logits = model.head(model(ids).hidden[0]).float()
        state = grammar.run(one)
        for place, chosen in enumerate(got.ids):
            legal = torch.cat([torch.arange(r.start, r.end + 1) for r in grammar.legal(state)])
            if len(legal) > 1 and place < len(got.ids) - 1:
                best = legal[logits[len(one) + place - 1, legal].argmax()]
                assert int(best) == chosen
            state = grammar.step(state, chosen)
    sampled = ComposeConfig(sampling=SamplingConfig(temperature=1.0), most=6, guidance=2.0)
    empty = request(kind, []) if kind != "read" else shown([0] * 6)
    for ids, got in zip(asked, compose(model, grammar, asked, sampled, empty=empty), strict=True):
        assert grammar.check([*ids, *got.ids]) == ""


def test_gradients_reach_the_makers_matrices_and_the_view_shares_all_tensors() -> None:
    model = routed()
    model.requires_grad_(False)
    assert model.maker is not None
    own = list(matrices(model.maker).requires_grad_(True).parameters())
    model(mixed()).hidden.square().sum().backward()
    assert all(m.grad is not None and m.grad.abs().sum() > 0 for m in own)
    assert all(p.grad is None for p in model.thinker.parameters())
    count = sum(p.numel() for p in model.parameters())
    parts = (model.thinker, model.rows, matrices(model.maker))
    assert count == sum(p.numel() for part in parts for p in part.parameters())
    before = model(mixed()).hidden.detach()
    with torch.no_grad():
        model.maker.blocks[0].ffn.down.weight.zero_()  # type: ignore[union-attr, operator]
        model.thinker.norm.weight.mul_(2)
    assert (model(mixed()).hidden - before).abs().max() > 0.1
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(mixed()).hidden, model(mixed()).hidden)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.97, 1.0])
def test_each_position_goes_through_its_own_matrix_and_teaches_that_one_alone(share: float) -> None:
    torch.manual_seed(int(100 * share))
    text, new = torch.nn.Linear(5, 7), torch.nn.Linear(5, 7)
    ours, x = torch.rand(3, 31) < share, torch.randn(3, 31, 5, requires_grad=True)
    place = [route_of(ours.reshape(-1))]
    leaves = [x, *text.parameters(), *new.parameters()]
    results = []
    for out in (Routed(text, new, place)(x), torch.where(ours[..., None], new(x), text(x))):
        found = torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)
        none = [torch.zeros_like(leaf) for leaf in leaves]
        results.append(
            [out, *(f if f is not None else z for f, z in zip(found, none, strict=True))]
        )
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_last_layer_routes_what_is_asked_for(share: float) -> None:
    model, found = routed(), []
    torch.manual_seed(3)
    ids = torch.randint(0, TEXT, (8, 20))
    ids[::2, 5:9] += TEXT
    spec, asked = AttentionSpec(lengths=torch.full((8,), 20)), torch.rand(8, 20) < share
    assert model.maker is not None
    learned = [*model.thinker.parameters(), *matrices(model.maker).parameters()]
    for wanted in (None, asked):
        hidden = model(ids, spec, asked=wanted).hidden
        total = hidden[asked].square().sum()
        grads = torch.autograd.grad(total, learned, allow_unused=True)
        found.append((hidden[asked], *grads))
    assert sum(one is not None for one in found[0]) > len(found[0]) // 2
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert not hidden[~asked].any()


def test_texts_of_media_and_of_nothing_are_asked_apart() -> None:
    with pytest.raises(InputError, match="apart"):
        asked = [request("text", [1]), shown([1] * 6)]
        compose(routed(), Grammar(space()), asked, ComposeConfig(most=6))


def test_others_than_a_copy_are_refused() -> None:
    base = made().thinker
    with pytest.raises(ValueError, match="its Thinker's shape"):
        RoutedThinker(base, made(short_conv=3).thinker)
    config = ThinkerConfig(
        vocab_size=8,
        width=16,
        layers=1,
        heads=1,
        kv_heads=1,
        head_width=16,
        ffn_width=16,
        moe=MoEConfig(experts=2, active=1, ffn_width=8),
    )
    with pytest.raises(ValueError, match="experts"):
        new_maker(Thinker(config))
    rows = Rows(RowsConfig(start=TEXT, count=3, width=32, tied=False))
    assert RowThinker(base, rows).maker is None
