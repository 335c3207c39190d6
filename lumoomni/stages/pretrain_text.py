"""Stage A, `pretrain_text`: a tokenizer and a Thinker that answers in text.

Trains on answers only, each closed by its end symbol. The gate: better than a 3-gram on held-out
text, a key-value cache that changes nothing, and questions answered exactly.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from lumoomni.audits.text import Ngram, heldout_loss, share_right, vocabulary_rows
from lumoomni.codecs.text import TextCodec
from lumoomni.config import nearest
from lumoomni.data.conversation import Batch, Encoded, Layout, collate, text_turns
from lumoomni.data.feeding import cut_note, shorten
from lumoomni.data.grouping import LengthGroups
from lumoomni.data.sample import Source, TextItem, take
from lumoomni.data.sources import open_text
from lumoomni.data.world.language import exact_match
from lumoomni.data.world.sensed import compared_talk, heard_talk, later_talk, shown_talk
from lumoomni.data.world.split import share
from lumoomni.errors import InputError
from lumoomni.gates import Check, Metric, Report, exact
from lumoomni.infer.answer import answer, answerable, text_embedder
from lumoomni.infer.assemble import ModelSettings, save_part, save_settings
from lumoomni.infer.engine import cached_equals_uncached
from lumoomni.media.mel import MelConfig
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.pipeline import StageContext
from lumoomni.runtime import atomic_write_text
from lumoomni.train.loop import LoopConfig, StepLoss, fit, site_of
from lumoomni.train.loss import lm_loss, predicting
from lumoomni.train.optim import OptimConfig
from lumoomni.uti.sequence import TEMPLATES

SHOWN_QUESTIONS = 6


@dataclass(frozen=True, kw_only=True)
class PretrainTextConfig:
    """`thinker.vocab_size` is an upper bound: the table has as many rows as the tokenizer needs."""

    data: str = "world"
    tokenizer_lines: int = 6000
    thinker: ThinkerConfig
    mel: MelConfig = field(default_factory=MelConfig)
    template: str = "compact"
    context_tokens: int = 512
    loop: LoopConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    aux_weight: float = 0.01
    shown: float = 0.0
    heard: float = 0.0
    """Shares of training rows, late in the run, in the words that pictures and speech become
    (`data/world/sensed.py`). Micro-world alone."""
    later: float = 0.0
    """Share of shown rows in which another picture comes in a later turn, and is meant from then
    on."""
    sensed_from: float = 0.5
    """Share of the run after which they come: earlier they keep the rest from being learned."""
    shown_positions: int = 16
    """Positions of a shown picture: those of the image connector to come."""
    eval_items: int = 400
    min_exact_match: float = 0.95

    def __post_init__(self) -> None:
        if self.template not in TEMPLATES:
            raise InputError(
                f"there is no template {self.template!r}; {nearest(self.template, TEMPLATES)}"
            )
        if self.eval_items < 20:
            raise InputError(f"eval_items is {self.eval_items}; a gate needs at least 20 items")


class TextTask:
    """Next-token prediction of answers."""

    echoes = True

    def __init__(self, thinker: Thinker, groups: LengthGroups[Encoded], aux_weight: float) -> None:
        self.modules: dict[str, nn.Module] = {"thinker": thinker}
        self._thinker, self._groups, self._aux = thinker, groups, aux_weight

    def batch(self, index: int) -> Batch:
        return collate(self._groups.batch(index))

    def weight(self, batch: Batch) -> float:
        return batch.weight()

    def loss(self, batch: Batch) -> StepLoss:
        thinker = self._thinker
        spec = AttentionSpec(lengths=batch.lengths)
        x = thinker.numbered(thinker.embed(batch.ids), batch.numbers)
        out = thinker(x, attention=spec, asked=predicting(batch.labels))
        result = lm_loss(out.hidden, batch.labels, thinker.head_weight())
        if out.aux_loss is None:
            return StepLoss(result.total, {})
        return StepLoss(result.total + self._aux * result.count * out.aux_loss, {})


def encode_item(layout: Layout, item: TextItem, most: int) -> Encoded:
    """A text conversation as a sequence with its answers supervised, its end cut off if need be."""
    return shorten(layout.encode(text_turns(item)), most)


def room(config: PretrainTextConfig) -> int:
    """Positions of a sequence: the Thinker's, and of other people's text those of a conversation;
    the micro-world's is as long as it is made."""
    most = config.thinker.max_positions
    return most if config.data == "world" else min(most, config.context_tokens)


def say_cut(
    config: PretrainTextConfig, source: Source[TextItem], layout: Layout, context: StageContext
) -> dict[str, str]:
    """How much of finite data is cut, said before it is learned from, as a note of the report."""
    every = (
        text_turns(source.item(split, i))
        for split in ("train", "seen")
        for i in range(source.size(split) or 0)
    )
    setting = f"the lesser of {context.name}.context_tokens and thinker.max_positions"
    said = cut_note(config.data, every, layout, room(config), setting)
    if said:
        context.progress.say(said)
    return {"cut": said} if said else {}


def training_lines(source: Source[TextItem], count: int) -> list[str]:
    """Texts to learn the tokenizer from: every turn of `count` samples, with a leading space too.

    The leading space teaches " word" pieces, which the recogniser's targets are made of.
    """
    lines = []
    for index in range(count):
        for _, text in source.item("train", index).turns:
            lines += [text, " " + text.lower()]
    return lines


def run(context: StageContext) -> Report:
    """Train, measure, save `thinker`, `tokenizer.json` and `settings.json`."""
    config: PretrainTextConfig = context.config
    source = open_text(config.data, context.seed)
    lines = training_lines(source, config.tokenizer_lines)
    codec = TextCodec.train(lines, config.thinker.vocab_size)
    thinker = new_thinker(config, codec, context.seed)
    layout = Layout(
        text_codec=codec,
        template=config.template,
        mel=config.mel,
        image_positions=config.shown_positions,
    )
    notes = say_cut(config, source, layout, context)
    draw = curriculum(config, source, context.seed)
    groups = LengthGroups(
        lambda i: encode_item(layout, draw(i), room(config)),
        batch_size=config.loop.batch_size,
        seed=context.seed,
        parts=config.loop.accumulate,
        echo=config.loop.echo,
    )
    task = TextTask(thinker, groups, config.aux_weight)
    fit(task, config.loop, config.optim, site_of(context))
    metrics, rows = measure(config, source, layout, thinker, context)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[:60])
    atomic_write_text(context.out / "examples.jsonl", lines)
    codec.save(context.out / "tokenizer.json")
    save_part(context.out, "thinker", thinker)
    save_settings(
        context.out,
        ModelSettings(
            mel=config.mel, template=config.template, context_tokens=config.context_tokens
        ),
    )
    return Report(metrics=metrics, notes=notes)


def curriculum(
    config: PretrainTextConfig, source: Source[TextItem], seed: int
) -> Callable[[int], TextItem]:
    """Training row by number: the source's own, and late in the run shown and heard ones too.

    Raises InputError when these are wanted beside other people's text.
    """
    sensed = config.shown + config.heard
    if sensed and config.data != "world":
        raise InputError(
            f"pretrain_text.shown and heard are {config.shown} and {config.heard}, but only the "
            "micro-world knows what pictures and speech will say; set them to 0 for other data"
        )
    loop = config.loop
    late = config.sensed_from * loop.steps * loop.accumulate * loop.batch_size / loop.echo

    def draw(index: int) -> TextItem:
        drawn = share("sensed", index) if index >= late else 1.0
        if drawn < config.later * config.shown:
            return later_talk(seed, "train", index, SHOWN_QUESTIONS)
        if drawn < config.shown:
            return shown_talk(seed, "train", index, SHOWN_QUESTIONS)
        if drawn < sensed:
            return heard_talk(seed, "train", index)
        return source.item("train", index)

    return draw


def new_thinker(config: PretrainTextConfig, codec: TextCodec, seed: int) -> Thinker:
    """A fresh Thinker whose table fits the tokenizer."""
    torch.manual_seed(seed)
    return Thinker(replace(config.thinker, vocab_size=vocabulary_rows(codec)))


def measure(
    config: PretrainTextConfig,
    source: Source[TextItem],
    layout: Layout,
    thinker: Thinker,
    context: StageContext,
) -> tuple[dict[str, Metric], list[dict[str, Any]]]:
    """Held-out loss beside a 3-gram's, cache equality, exact match; and what was asked and said."""
    held = take(source, "seen", config.eval_items)
    most = room(config)
    encoded = [encode_item(layout, item, most) for item in held]
    drawn = (source.item("train", i) for i in range(10 * config.eval_items))
    train = (encode_item(layout, item, most) for item in drawn)
    trigram = Ngram(3, layout.text_codec.vocab_size).learn(train)
    asked = questions(thinker, layout, held, context)
    said, right = answered(thinker, layout, [held[i] for i in asked])
    ids = torch.from_numpy(max(encoded, key=len).sequence.ids)[None]
    metrics = {
        "text.loss": heldout_loss(thinker, encoded),
        "text.trigram_loss": trigram.loss(encoded),
        "text.cache_difference": exact(cached_equals_uncached(thinker, ids)),
        "text.exact_match": share_right(right),
    }
    for kind in sorted({held[i].kind for i in asked}):
        flags = [r for r, i in zip(right, asked, strict=True) if held[i].kind == kind]
        metrics[f"text.exact_match.{kind}"] = share_right(flags)
    count = config.eval_items // 2
    if config.shown:
        shown = [shown_talk(context.seed, "seen", i, 1) for i in range(count)]
        metrics["text.shown_match"] = share_right(answered(thinker, layout, shown)[1])
        two = [compared_talk(context.seed, "seen", i, 1) for i in range(count)]
        metrics["text.compared_match"] = share_right(answered(thinker, layout, two)[1])
    if config.shown and config.later:
        later = [later_talk(context.seed, "seen", i, 2) for i in range(count)]
        metrics["text.later_match"] = share_right(answered(thinker, layout, later)[1])
    if config.heard:
        heard = [heard_talk(context.seed, "seen", i) for i in range(count)]
        metrics["text.heard_match"] = share_right(answered(thinker, layout, heard)[1])
    return metrics, examples(held, asked, said, right)


def questions(
    thinker: Thinker, layout: Layout, held: Sequence[TextItem], context: StageContext
) -> list[int]:
    """Places of the held-out items that ask something; what leaves no room to answer is said."""
    asked = [i for i, item in enumerate(held) if len(item.turns) > 1]
    room_left = answerable(thinker, layout, [text_turns(held[i])[:-1] for i in asked])
    if len(room_left) < len(asked):
        context.progress.say(
            f"{context.name}: {len(asked) - len(room_left)} of {len(asked)} held-out questions "
            f"leave no room to answer in {thinker.config.max_positions} positions and are not asked"
        )
    return [asked[place] for place in room_left]


def answered(
    thinker: Thinker, layout: Layout, items: Sequence[TextItem]
) -> tuple[list[str], list[bool]]:
    """What is said as the last turn of each item, and whether that is right."""
    prompts = [text_turns(item)[:-1] for item in items]
    said = answer(thinker, text_embedder(thinker), layout, prompts)
    wanted = [item.accepted or (item.turns[-1][1],) for item in items]
    return said, [exact_match(text, best) for text, best in zip(said, wanted, strict=True)]


def examples(
    held: list[TextItem], asked: list[int], said: list[str], right: list[bool]
) -> list[dict[str, Any]]:
    """Questions and answers for the report, the wrong ones first."""
    rows: list[dict[str, Any]] = [
        {
            "turns": [list(turn) for turn in held[i].turns],
            "answer": text,
            "right": ok,
            "kind": held[i].kind,
        }
        for i, text, ok in zip(asked, said, right, strict=True)
    ]
    return sorted(rows, key=lambda row: row["right"])


def checks(config: PretrainTextConfig) -> tuple[Check, ...]:
    """The gate."""
    check = partial(Check, min_n=min(100, config.eval_items))
    found = [
        check(
            metric="text.loss",
            op="<",
            threshold=1.0,
            times="text.trigram_loss",
            why="a Thinker must know more than the last two tokens",
        ),
        Check(
            metric="text.cache_difference",
            op="<=",
            threshold=1e-3,
            why="cached generation must equal the whole forward, up to fp32 rounding of logits",
        ),
    ]
    if config.data == "world":
        found.append(
            check(
                metric="text.exact_match",
                op=">=",
                threshold=config.min_exact_match,
                why="held-out questions must be answered exactly",
            )
        )
    return tuple(found)
