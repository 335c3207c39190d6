"""From a request to a whole picture, sound or text in ids of one space, under its grammar.

Knows: a Thinker with new rows, the grammar, how to choose, and guidance by an empty request.
Does not know: codecs or files. Costs: one step of the Thinker for each id; the head is computed
for the legal ids alone, and not at all where only one id is legal.

What comes out can always be decoded: an id that may not follow is never scored. How much
probability it would have had is the constraint pressure (`watch`): the first sign of a model that
has not learned where it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lumoomni.errors import InputError
from lumoomni.infer.engine import stepper
from lumoomni.infer.sampling import SamplingConfig, sample
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.rows import RowThinker
from lumoomni.uti.grammar import END, REQUEST, Grammar, State
from lumoomni.uti.space import Range


@dataclass(frozen=True, kw_only=True)
class ComposeConfig:
    """`guidance` 1 is none; g scores with u + g (c - u) (arXiv 2207.12598).

    `most` bounds the ids of a text or a sound, which is ended there; pictures are always whole.
    """

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    guidance: float = 1.0
    most: int = 512
    seed: int = 0
    watch: bool = False
    """Score every id at every step, to measure the constraint pressure."""
    likely: bool = False
    """Add up how likely each answer was."""

    def __post_init__(self) -> None:
        if self.guidance < 0 or self.most < 1:
            raise ValueError(
                f"guidance must not be negative and most at least 1, got {self.guidance} and "
                f"{self.most}"
            )


@dataclass(frozen=True)
class Composed:
    """`ids` with their markers; `pressure`: mean probability of illegal ids, None if unwatched;
    `likely`: log-probability among legal ids, without guidance and at temperature 1."""

    ids: list[int]
    pressure: float | None
    likely: float = 0.0


@dataclass(frozen=True)
class _Legal:
    """Legal ids [n] and their head rows [n, D]."""

    ids: Tensor
    weight: Tensor


@torch.inference_mode()
def compose(
    model: RowThinker,
    grammar: Grammar,
    requests: Sequence[Sequence[int]],
    config: ComposeConfig,
    *,
    empty: Sequence[int] | None = None,
) -> list[Composed]:
    """What each request asks for; all must end in one same `<|gen_...|>`.

    `empty` is the request with nothing said, which guidance other than 1 needs.
    Raises InputError for a request that the grammar forbids or that asks for nothing.
    """
    kind = _asked_for(grammar, requests)
    if config.guidance != 1 and empty is None:
        raise InputError(
            f"guidance of {config.guidance} compares with an empty request; give one, or use 1"
        )
    guided = empty is not None and config.guidance != 1
    prompts = [list(ids) for ids in requests] + ([list(empty)] if guided and empty else [])
    count, device = len(requests), model.rows.row_table.device
    shown, keys = _left_padded(prompts, device)
    if guided:  # the empty request stands once for each one, so that its own history can differ
        order = torch.tensor([*range(count), *([count] * count)], device=device)
        shown, keys = shown[order], keys[order]
    columns = shown.shape[1] + _longest(grammar, kind, config.most)
    room = model.thinker.config.max_positions
    if columns > room:
        raise InputError(
            f"a request of {shown.shape[1]} ids and its answer need {columns} positions, the "
            f"Thinker has {room}; ask for less"
        )
    cache = model.thinker.new_cache(len(shown), columns)
    spec = None if bool(keys.all()) else AttentionSpec(keys=keys)
    hidden = model(shown, spec, cache).hidden[:, -1]
    after = kind == "text" and _after_media(model, requests)
    stepping, advance = model.thinker, stepper(model.thinker, cache)
    chooser = _Chooser(model, config, count, guided)
    state, ended = State(wanted=kind), torch.zeros(count, dtype=torch.bool, device=device)
    end = grammar.space.special(END[kind])
    out: list[Tensor] = []
    while not bool(ended.all()):
        ranges = _bounded(grammar, state, config.most, end)
        chosen = torch.where(ended, end, chooser(hidden, ranges, ~ended))
        out.append(chosen)
        # All that go on have as many ids: where one may end, the others begin a frame or a word.
        going = chosen[~ended]
        ended = ended | (chosen == end)
        inside = going[going != end]
        if len(inside):
            state = grammar.step(state, int(inside[0]))
            if model.stepping(int(inside[0]), after) is not stepping:
                stepping = model.stepping(int(inside[0]), after)
                advance = stepper(stepping, cache)
            hidden = advance(model.embed(torch.cat([chosen, chosen]) if guided else chosen))
    return _composed(torch.stack(out, 1), end, chooser)


def _composed(chosen: Tensor, end: int, chooser: "_Chooser") -> list[Composed]:
    """Answers of chosen ids [B, n], each up to its end."""
    pressure, likely = chooser.pressure(), chooser.likely.tolist()
    return [
        Composed(row[: row.index(end) + 1], pressure, how)
        for row, how in zip(chosen.tolist(), likely, strict=True)
    ]


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """(ids [B, T], which of them are real) with each prompt at the end of its row."""
    rows = [torch.tensor(ids, device=device) for ids in prompts]
    keys = [torch.ones_like(row, dtype=torch.bool) for row in rows]
    ids, real = (pad_sequence(x, batch_first=True, padding_side="left") for x in (rows, keys))
    return ids, real


def _asked_for(grammar: Grammar, requests: Sequence[Sequence[int]]) -> str:
    """The one kind that all requests end by asking for."""
    kinds = {grammar.run(ids).wanted for ids in requests}
    if len(kinds) != 1 or "" in kinds:
        names = ", ".join(REQUEST.values())
        raise InputError(
            f"the {len(requests)} requests ask for {sorted(kinds)}; each must end with the same "
            f"one of {names}"
        )
    return kinds.pop()


def _after_media(model: RowThinker, requests: Sequence[Sequence[int]]) -> bool:
    """Whether texts follow a picture or a sound; with a maker this must be one for all."""
    found = {bool(model.after_media(torch.tensor([list(one)])).any()) for one in requests}
    if len(found) > 1 and model.maker is not None:
        raise InputError(
            f"some of the {len(requests)} requests show a picture or a sound and some do not; ask "
            "for each kind apart"
        )
    return True in found


def _longest(grammar: Grammar, kind: str, most: int) -> int:
    """Positions that an answer can take, markers and the rest of a last frame included."""
    if kind == "image":
        return grammar.space.codec("image").tokens + 2
    return most + 2 + (grammar.space.codec("audio").codebooks if kind == "audio" else 0)


def _bounded(grammar: Grammar, state: State, most: int, end: int) -> tuple[Range, ...]:
    """Legal ranges, and the end alone once there is no room for more."""
    legal = grammar.legal(state)
    closing = tuple(one for one in legal if one.start == end)
    return closing if closing and state.inside >= most else legal


class _Chooser:
    """Next ids [B] from hidden [B (or 2 B with guidance), D] among some ranges."""

    def __init__(self, model: RowThinker, config: ComposeConfig, batch: int, guided: bool) -> None:
        self._model, self._config, self._batch, self._guided = model, config, batch, guided
        device = model.rows.row_table.device
        self._generator = torch.Generator(device=device).manual_seed(config.seed)
        self._slices: dict[tuple[Range, ...], _Legal] = {}
        self._illegal: list[Tensor] = []
        self.likely = torch.zeros(batch, device=device)

    def __call__(self, hidden: Tensor, ranges: tuple[Range, ...], going: Tensor) -> Tensor:
        """What follows an answer's end (`going` [B] false) means nothing, and is not watched."""
        batch = self._batch
        legal = self._legal(ranges)
        if self._config.watch:
            whole = self._model.head(hidden[:batch]).float().softmax(-1)
            self._illegal.append((1 - whole[:, legal.ids].sum(-1))[going])
        if len(legal.ids) == 1:
            return legal.ids.expand(batch)
        logits = (hidden @ legal.weight.t()).float()
        right = logits[:batch]
        if self._guided:
            logits = logits[batch:] + self._config.guidance * (right - logits[batch:])
        places = sample(logits, self._config.sampling, self._generator)
        if self._config.likely:
            found = right.log_softmax(-1).gather(1, places[:, None])[:, 0]
            self.likely += torch.where(going, found, 0.0)
        return legal.ids[places]

    def _legal(self, ranges: tuple[Range, ...]) -> _Legal:
        if ranges not in self._slices:
            weights = [self._model.weight_slice(one.start, one.end + 1) for one in ranges]
            like = self._model.thinker.head_weight()
            ids = [torch.arange(one.start, one.end + 1, device=like.device) for one in ranges]
            weight = weights[0] if len(weights) == 1 else torch.cat([w.float() for w in weights])
            self._slices[ranges] = _Legal(torch.cat(ids), weight.to(like.dtype))
        return self._slices[ranges]

    def pressure(self) -> float | None:
        """Mean over steps and requests; None when not watched."""
        return float(torch.cat(self._illegal).mean()) if self._illegal else None
