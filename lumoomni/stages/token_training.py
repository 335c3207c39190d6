"""What the stages that learn tokens share: settings, what they learn from, and how they are scored.

Knows: the parents of such a stage, held-out samples of each task, text that must not suffer.
Does not know: what is trained, or drawing. Costs: fresh tokens are made once and kept in the
build's cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from lumoomni.artifacts import Artifact
from lumoomni.audits.making import Listener
from lumoomni.audits.token_lm import Frequencies, TaskScores, score_task
from lumoomni.codecs.image_vq import ImageCodec
from lumoomni.codecs.scalar import values
from lumoomni.codecs.stored import IMAGE, SPEECH
from lumoomni.data.conversation import Batch, Encoded, Layout, collate, text_turns
from lumoomni.data.grouping import LengthGroups
from lumoomni.data.sample import Source, TextItem, take
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.shards import Tokenized
from lumoomni.data.sources import open_text
from lumoomni.data.token_loader import LoaderConfig
from lumoomni.data.token_mixture import Curriculum, TokenMix, TokenMixture, shares_of
from lumoomni.data.world_shards import FreshConfig, fresh_shards, held_out
from lumoomni.errors import InputError
from lumoomni.gates import Check, Metric, wilson
from lumoomni.infer.assemble import holder, load_part, load_settings
from lumoomni.infer.listen import transcribe
from lumoomni.media.audio import Audio, load_audio
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.audio import AudioTower
from lumoomni.model.rows import Rows, RowsConfig, RowThinker
from lumoomni.model.thinker import Thinker
from lumoomni.pipeline import StageContext
from lumoomni.stages.tokenize import SHARDS
from lumoomni.train.loop import LoopConfig
from lumoomni.train.optim import OptimConfig
from lumoomni.train.row_loss import share_of_rows
from lumoomni.uti.grammar import PAD
from lumoomni.uti.interface import UTI
from lumoomni.uti.sequence import Sequence as Ids
from lumoomni.uti.tasks import Composer

LEARNED = 500
"""Training samples of each task that mere frequencies are counted in."""
MOST_LOST = 1e-3
"""Rounding loses less."""


@dataclass(frozen=True, kw_only=True)
class TokenTrainingConfig:
    """Settings of every stage that learns tokens; `mix` counts samples, `text` names their text.

    `fresh.first` is set to what `tokenize` made of the world. `unsaid`: share of requests for a
    picture or a sound that say nothing. With `start_until`, the share of the run before it learns
    from `start` instead of `mix`.
    """

    mix: TokenMix
    start: TokenMix | None = None
    start_until: float = 0.0
    fresh: FreshConfig = field(default_factory=FreshConfig)
    unsaid: float = 0.1
    share_digits: bool = False
    """Whether rows of codes that are digits share what equal digits have in common, and how fast
    that moves beside a row's own part."""
    shared_rate: float = 1.0
    text: str = "world"
    text_weight: float = 1.0
    """How much an id of text counts beside one of a picture or a sound, which have more ids."""
    context: int = 512
    loop: LoopConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval_items: int = 120
    """Held-out samples of each task, and held-out texts."""

    def __post_init__(self) -> None:
        if (self.start is None) != (self.start_until == 0) or not 0 <= self.start_until < 1:
            raise InputError(
                f"start_until is {self.start_until} with {'no' if self.start is None else 'a'} "
                "mixture to start with; give both, the share below 1, or neither"
            )
        if self.eval_items < 20:
            raise InputError(f"eval_items is {self.eval_items}; a gate needs at least 20 items")

    @property
    def tasks(self) -> dict[str, int]:
        """Tasks that are trained at any time."""
        return {**({} if self.start is None else self.start.tasks), **self.mix.tasks}


@dataclass(frozen=True)
class Bench:
    """All that a stage learns from and is held to, opened."""

    uti: UTI
    shards: ShardSet
    layout: Layout
    source: Source[TextItem]
    config: TokenTrainingConfig
    seed: int

    def text(self, index: int) -> Encoded:
        """Training text by number."""
        return self._encode(self.source.item("train", index))

    def held_text(self) -> list[Encoded]:
        """Text that training never saw."""
        return [self._encode(one) for one in take(self.source, "seen", self.config.eval_items)]

    def held(self, task: str) -> list[Tokenized]:
        """Held-out samples of a task, spread over the whole split.

        Raises InputError when there are fewer than 20.
        """
        every = (self.shards.sample("eval", i) for i in range(self.shards.len("eval")))
        found = [one for one in every if one.task == task]
        if len(found) < 20:
            raise InputError(
                f"{self.shards.path} holds out {len(found)} samples of {task}, a gate needs at "
                "least 20; raise tokenize.manifest.world.held"
            )
        step = max(1, len(found) // self.config.eval_items)
        return found[::step][: self.config.eval_items]

    def frequencies(self, task: str) -> Frequencies:
        """How often each id is a target of a task in training."""
        composer, known = Composer(self.uti.space), Frequencies(self.uti.space)
        share = shares_of([self.shards], task, 1)[0]
        every = (self.shards.sample("train", i) for i in range(self.shards.len("train")))
        mine = [one for one in every if one.task == share.records[0]][:LEARNED]
        whole = [composer.sequence(task, one) for one in mine]
        return known.learn([one for one in whole if len(one.ids) <= self.config.context])

    def scores(self, model: RowThinker, tasks: Sequence[str]) -> dict[str, TaskScores]:
        """Held-out losses of each task, under right, swapped and empty sources."""
        limit = self.config.context
        return {
            task: score_task(
                model,
                self.uti.space,
                task,
                self.held(task),
                self.frequencies(task),
                limit=limit,
            )
            for task in tasks
        }

    def _encode(self, item: TextItem) -> Encoded:
        """Cut at its end where it is too long; it is text alone, so nothing else is lost."""
        made = self.layout.encode(text_turns(item))
        if len(made) <= self.config.context:
            return made
        whole, most = made.sequence, self.config.context
        return replace(made, sequence=Ids(whole.ids[:most], whole.labels[:most], (), ()))


def open_bench(context: StageContext, config: TokenTrainingConfig) -> Bench:
    """Raises InputError for shards of another token space."""
    parents = context.parents
    uti = UTI.load(parents["build_token_space"].path)
    shards = ShardSet.open(parents["tokenize"].path / SHARDS, abi=uti.space.abi)
    settings = load_settings(holder(parents, "settings.json"))
    layout = Layout(text_codec=uti.text_codec, template=settings.template, mel=settings.mel)
    source = open_text(config.text, context.seed)
    return Bench(uti, shards, layout, source, config, context.seed)


def load_thinker(context: StageContext, bench: Bench) -> Thinker:
    """The Thinker of `instruct`. Raises InputError when the token space is not made for it."""
    thinker = load_part(context.parents["instruct"], "thinker")
    assert isinstance(thinker, Thinker)
    have, want = thinker.config.vocab_size, bench.uti.space.named("TEXT").size
    if have != want:
        raise InputError(
            f"the token space has {want} text ids, but the Thinker of instruct has {have} rows; "
            "build build_token_space again"
        )
    return thinker


def rows_config(thinker: Thinker, bench: Bench) -> RowsConfig:
    """A row for each new id of the space."""
    return RowsConfig(
        start=thinker.config.vocab_size,
        count=len(bench.uti.space.new_rows),
        width=thinker.config.width,
        tied=thinker.config.tied,
        markers=bench.uti.space.named("SPECIAL").size,
    )


def codebooks(space: Artifact, bench: Bench) -> dict[int, torch.Tensor]:
    """First row of a codebook -> its vectors [K, C], of codecs that the space holds as parts."""
    found: dict[int, torch.Tensor] = {}
    edge = bench.uti.space.new_rows.start
    for kind, part in (("image", IMAGE), ("audio", SPEECH)):
        if f"{part}.json" not in space.manifest["files"]:
            continue
        vectors = load_part(space, part).quantiser.codebooks  # type: ignore[union-attr]
        for book, table in zip(bench.uti.space.books(kind), vectors, strict=True):  # type: ignore[arg-type]
            found[book.start - edge] = table
    return found


def share_digits(context: StageContext, bench: Bench, rows: Rows, *, trained: bool = True) -> None:
    """Where the settings say so and the picture codec's codes are digits, rows share them: of a
    colour and a form that stand apart these two alone, of others each digit and each two.

    Raises InputError for rows that were trained for themselves, where only sums would be left.
    """
    space = context.parents["build_token_space"]
    if not bench.config.share_digits or f"{IMAGE}.json" not in space.manifest["files"]:
        return
    codec = load_part(space, IMAGE)
    assert isinstance(codec, ImageCodec)
    if codec.config.levels:
        (book,) = bench.uti.space.books("image")
        parts = values(torch.arange(book.size), codec.config.parts)
        place = book.start - bench.uti.space.new_rows.start
        before = [one.detach().clone() for one in (rows.embedding_rows(), rows.head_rows())]
        rows.share(place, parts, alone=codec.config.ink_digits > 0)
        after = [one.detach() for one in (rows.embedding_rows(), rows.head_rows())]
        lost = max(float((b - a).norm() / a.norm()) for a, b in zip(before, after, strict=True))
        if trained and lost > MOST_LOST:
            raise InputError(
                f"rows of pictures are to be sums of a colour's and a form's, but {lost:.1%} of "
                f"what they have learned is no such sum, where at most {MOST_LOST:.1%} may be; "
                f"set share_digits in train_rows as in {context.name}"
            )


def training_sets(context: StageContext, bench: Bench) -> list[ShardSet]:
    """The shards of `tokenize`, and fresh ones if there are to be any."""
    fresh = bench.config.fresh
    if not fresh.items:
        return [bench.shards]
    manifest = context.parents["tokenize"].config["manifest"]
    fresh = replace(fresh, first=int(manifest["world"]["count"]))
    made = fresh_shards(
        context.cache,
        context.parents["build_token_space"].path,
        fresh,
        seed=context.seed,
        progress=context.progress,
        stop=context.stop,
        held=held_out(bench.shards),
    )
    return [bench.shards, made]


def batches_of(bench: Bench, shards: Sequence[ShardSet]) -> Callable[[int], Batch]:
    """Micro-batches by number."""
    config, loop = bench.config, bench.config.loop
    how = LoaderConfig(context=config.context, seed=bench.seed, unsaid=config.unsaid)
    draw: Callable[[int], Encoded] = TokenMixture(shards, config.mix, how, bench.text)
    if config.start is not None:
        edge = int(config.start_until * loop.steps) * loop.accumulate * loop.batch_size // loop.echo
        draw = Curriculum(TokenMixture(shards, config.start, how, bench.text), draw, edge)
    groups = LengthGroups(
        draw,
        batch_size=loop.batch_size,
        seed=bench.seed,
        parts=loop.accumulate,
        echo=loop.echo,
    )
    pad = bench.uti.space.special(PAD)
    return lambda index: collate(groups.batch(index), pad)


def share_check(most: float = 0.05) -> Check:
    """The gate of `text_share`."""
    why = "new symbols must not push themselves into text"
    return Check(metric="text.rows_share", op="<=", threshold=most, min_n=100, why=why)


@torch.no_grad()
def text_share(model: RowThinker, items: Sequence[Encoded], batch: int = 32) -> Metric:
    """The mean probability that the new rows would take from text, at its learned positions."""
    total, count = 0.0, 0
    base, rows = model.thinker.head_weight(), model.rows.head_rows()
    for first in range(0, len(items), batch):
        made = collate(list(items[first : first + batch]))
        spec = AttentionSpec(lengths=made.lengths)
        hidden = model(made.ids, spec).hidden
        found = share_of_rows(hidden, made.labels, base, rows)
        total, count = total + found.total, count + found.count
    return Metric(value=total / count if count else float("nan"), n=count)


@torch.no_grad()
def text_bits(
    plain: Thinker, model: RowThinker, items: Sequence[Encoded], batch: int = 32
) -> Metric:
    """The share of text logits that are the same bits with the rows as without them."""
    same = count = 0
    edge = model.rows.config.start
    for first in range(0, len(items), batch):
        made = collate(list(items[first : first + batch]))
        spec = AttentionSpec(lengths=made.lengths)
        old = plain.head(plain(plain.embed(made.ids), attention=spec).hidden)
        new = model.head(model(made.ids, spec).hidden)
        same += int((old == new[..., :edge]).sum())
        count += old.numel()
    return wilson(same, count)


def listener_of(context: StageContext, bench: Bench) -> Listener | None:
    """The recogniser of the build, if it has one. What holds no samples says nothing."""
    parent = context.parents.get("train_audio_encoder")
    if parent is None:
        return None
    tower, mel = load_part(parent, "audio"), bench.layout.mel
    assert isinstance(tower, AudioTower)
    tower.eval()

    def listen(sounds: Sequence[Audio]) -> list[str]:
        there = [k for k, one in enumerate(sounds) if len(one.samples)]
        clips = [load_audio(sounds[k], rate=mel.rate).samples for k in there]
        heard = dict(zip(there, transcribe(tower, bench.uti.text_codec, mel, clips), strict=True))
        return [heard.get(k, "") for k in range(len(sounds))]

    return listen
