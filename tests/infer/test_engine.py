"""Generation equals repeated whole forwards, alone and in a batch, and stops where it should."""

import pytest
import torch

from lumoomni.infer.engine import (
    GenerateConfig,
    cached_equals_uncached,
    generate,
    left_pad,
)
from lumoomni.infer.sampling import SamplingConfig
from lumoomni.model.attention import KVCache
from lumoomni.model.moe import MoEConfig
from lumoomni.model.thinker import Thinker, ThinkerConfig
from tests.compiler import needs_compiler

# Logits reach about 15 here; the worst difference seen over 20 seeds was 3.5e-5.
TOLERANCE = 2e-4
SHAPE = {
    "vocab_size": 97,
    "width": 32,
    "layers": 3,
    "heads": 4,
    "kv_heads": 2,
    "head_width": 8,
    "ffn_width": 64,
    "max_positions": 64,
}
MOE = MoEConfig(experts=4, active=2, ffn_width=16)
KINDS = [{}, {"window": 4}, {"qk_norm": False, "qkv_bias": True}, {"moe": MOE}, {"tied": False}]
KINDS += [{"short_conv": 3}]


def make(**changes: object) -> Thinker:
    torch.manual_seed(0)
    thinker = Thinker(ThinkerConfig(**{**SHAPE, **changes})).eval()  # pyright: ignore
    thinker.init_weights(std=0.3)
    for name, parameter in thinker.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return thinker


def ids_of(batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, 97, (batch, length), generator=torch.Generator().manual_seed(1))


def by_whole_forwards(thinker: Thinker, ids: torch.Tensor, count: int) -> list[int]:
    for _ in range(count):
        with torch.no_grad():
            hidden = thinker(thinker.embed(ids)).hidden[:, -1]
            ids = torch.cat([ids, thinker.head(hidden).argmax(-1, keepdim=True)], 1)
    return ids[0, -count:].tolist()


@pytest.mark.parametrize("changes", KINDS)
def test_cached_equals_uncached(changes: dict) -> None:
    assert cached_equals_uncached(make(**changes), ids_of(2, 14)) < TOLERANCE


@pytest.mark.parametrize("changes", KINDS)
def test_greedy_equals_repeated_whole_forwards(changes: dict) -> None:
    thinker = make(**changes)
    ids = ids_of(1, 6)
    run = generate(thinker, ids, GenerateConfig(max_new_tokens=8))
    steps = list(run)
    want = by_whole_forwards(thinker, ids, 8)
    assert run.ids[0].tolist() == want == [int(step.ids) for step in steps]
    whole = torch.cat([ids, run.ids], 1)
    with torch.no_grad():
        hidden = thinker(thinker.embed(whole)).hidden
    assert (run.hidden - hidden[:, 6:]).abs().max() < TOLERANCE
    produced = torch.stack([step.hidden for step in steps], 1)
    assert (produced - hidden[:, 5:-1]).abs().max() < TOLERANCE


@pytest.mark.parametrize("changes", [{}, {"window": 4}, {"short_conv": 3}])
def test_left_padded_batch_equals_each_alone(changes: dict) -> None:
    thinker = make(**changes)
    prompts = [ids_of(1, 9), ids_of(1, 9)[:, 5:], ids_of(1, 9)[:, 8:]]
    batch = left_pad([thinker.embed(p)[0].detach() for p in prompts])
    run = generate(thinker, batch.embeds, GenerateConfig(max_new_tokens=7), keys=batch.keys)
    list(run)
    for row, prompt in enumerate(prompts):
        alone = generate(thinker, prompt, GenerateConfig(max_new_tokens=7))
        list(alone)
        assert run.ids[row].tolist() == alone.ids[0].tolist()
        assert (run.hidden[row] - alone.hidden[0]).abs().max() < TOLERANCE


@pytest.mark.parametrize("flat", [True, False])
def test_a_cache_that_forgets_is_caught(flat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit must fail when one old column is lost, on the flat path and on the modules'."""
    thinker = make()
    if not flat:
        thinker.blocks[0].register_forward_hook(lambda *_: None)  # makes the flat step step aside
    whole = KVCache.extend

    def forgetful(cache: KVCache, count: int, keys: torch.Tensor | None) -> None:
        whole(cache, count, keys)
        if cache.length == 10:
            cache.store[:, :, :, :, 2] = 0

    monkeypatch.setattr(KVCache, "extend", forgetful)
    assert cached_equals_uncached(thinker, ids_of(2, 14)) > 0.01


def test_what_stands_in_left_padding_is_never_mixed_in() -> None:
    thinker = make(short_conv=3)
    ids, keys = ids_of(2, 6), torch.ones(2, 6, dtype=torch.bool)
    keys[1, :5] = False
    config = GenerateConfig(max_new_tokens=5)
    batch, alone = (
        generate(thinker, ids, config, keys=keys),
        generate(thinker, ids[1:, 5:], config),
    )
    list(batch), list(alone)
    assert (batch.hidden[1] - alone.hidden[0]).abs().max() < TOLERANCE


def test_a_forgotten_tail_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit must fail when the short convolution loses what stood before."""
    thinker = make(short_conv=3)
    assert thinker.short_conv is not None
    whole = thinker.short_conv.forward
    monkeypatch.setattr(thinker.short_conv, "forward", lambda x, _, positions: whole(x, None))
    assert cached_equals_uncached(thinker, ids_of(2, 14)) > 0.01


def test_changed_weights_are_seen_by_the_next_generation() -> None:
    thinker = make()
    ids = ids_of(2, 14)
    assert cached_equals_uncached(thinker, ids) < TOLERANCE
    with torch.no_grad():
        thinker.blocks[1].attention.out.weight.data.mul_(1.5)  # pyright: ignore
    assert cached_equals_uncached(thinker, ids) < TOLERANCE
    optim = torch.optim.AdamW(thinker.parameters(), lr=0.01, fused=True)
    thinker(thinker.embed(ids)).hidden.sum().backward()
    optim.step()
    assert cached_equals_uncached(thinker, ids) < TOLERANCE


def test_stop_ids_end_each_sequence_and_the_batch() -> None:
    thinker = make()
    ids = ids_of(2, 6)
    free = generate(thinker, ids, GenerateConfig(max_new_tokens=10))
    list(free)
    stops = (int(free.ids[0, 2]), int(free.ids[1, 5]))
    run = generate(thinker, ids, GenerateConfig(max_new_tokens=10, stop_ids=stops))
    steps = list(run)
    assert bool(steps[-1].finished.all()) and len(steps) < 10
    for row, reply in enumerate(run.replies(stops)):
        want = free.ids[row].tolist()
        end = next(i for i, x in enumerate(want) if x in stops)
        assert reply == want[:end]
    assert run.hidden.shape[1] == len(steps)


def test_only_legal_ids_are_chosen() -> None:
    thinker = make()
    legal = torch.tensor([3, 8, 90])
    mask = torch.zeros(2, 97, dtype=torch.bool)
    mask[:, legal] = True
    config = GenerateConfig(max_new_tokens=6)
    replies = []
    for allowed in (legal, mask, lambda ids: legal if ids is None else mask):
        run = generate(thinker, ids_of(2, 6), config, allowed=allowed)
        list(run)
        assert torch.isin(run.ids, legal).all()
        replies.append(run.ids.tolist())
    assert replies[0] == replies[1] == replies[2]


def test_sampling_repeats_under_a_seed_and_moves_with_it() -> None:
    thinker = make()
    sampling = SamplingConfig(temperature=1.5)
    out = []
    for seed in (1, 1, 2):
        run = generate(
            thinker, ids_of(1, 6), GenerateConfig(max_new_tokens=12, sampling=sampling, seed=seed)
        )
        list(run)
        out.append(run.ids.tolist())
    assert out[0] == out[1] != out[2]


def test_too_long_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="max_positions 64"):
        generate(make(), ids_of(1, 60), GenerateConfig(max_new_tokens=5))


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_compiled_steps_equal_uncached() -> None:
    thinker = make(window=5)
    assert cached_equals_uncached(thinker, ids_of(2, 14), compiled=True) < TOLERANCE
    prompts = [thinker.embed(ids_of(1, 9))[0].detach(), thinker.embed(ids_of(1, 4))[0].detach()]
    batch = left_pad(prompts)
    runs = []
    for compiled in (False, True):
        config = GenerateConfig(max_new_tokens=7)
        run = generate(thinker, batch.embeds, config, keys=batch.keys, compiled=compiled)
        list(run)
        runs.append(run.ids.tolist())
    assert runs[0] == runs[1]
