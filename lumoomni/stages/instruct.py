"""Stage E, `instruct`: one model that looks, listens and answers.

Trains the two connectors and the Thinker's blocks on paired data: pictures with captions and
questions, speech to be written down or answered, spoken questions about pictures, and text so
that nothing is forgotten. The towers stay frozen, and so does the token table, which the Talker
reads. The gate asks held-out questions, swaps pictures and sounds, and has the Talker read back.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import torch

from lumoomni.audits.instructed import (
    Asked,
    Examiner,
    blind_gap,
    heard_words,
    picture_swap,
    share,
    sound_swap,
)
from lumoomni.audits.speech import word_errors
from lumoomni.audits.text import TEXTS, heldout_losses
from lumoomni.codecs.text import TextCodec
from lumoomni.codecs.vocoder import vocode
from lumoomni.data.conversation import Encoded, Layout, Turn, audio_positions
from lumoomni.data.feeding import cut_note, shorten
from lumoomni.data.grouping import LengthGroups
from lumoomni.data.mixture import InstructData, InstructMixture
from lumoomni.data.sample import UNTOLD, PictureItem
from lumoomni.data.sources import Fits, open_speech
from lumoomni.data.world.language import copied
from lumoomni.data.world.sensed import WRITE_DOWN
from lumoomni.errors import InputError
from lumoomni.gates import Check, Metric, Report, bootstrap_ratio
from lumoomni.infer.assemble import load_part, load_settings, save_part
from lumoomni.infer.listen import transcribe
from lumoomni.infer.speech import reply_states, talk
from lumoomni.media.image import normalise, save_png
from lumoomni.model.audio import AudioTower
from lumoomni.model.connector import LinearConnector, LinearConnectorConfig
from lumoomni.model.omni import OmniModel
from lumoomni.model.perceiver import PerceiverConnector
from lumoomni.model.thinker import Thinker
from lumoomni.model.vision import VisionTower
from lumoomni.pipeline import StageContext
from lumoomni.runtime import atomic_write_text
from lumoomni.train.answers import InstructTask
from lumoomni.train.freeze import fingerprint, freeze
from lumoomni.train.loop import LoopConfig, fit, site_of
from lumoomni.train.optim import OptimConfig
from lumoomni.train.warm_start import Described, start_ears, start_eyes
from lumoomni.uti.sequence import SILENCE


@dataclass(frozen=True, kw_only=True)
class InstructConfig:
    """`image_side` squared positions a picture (0: CLS alone); widths come from the parts.

    After `align_connector` pictures come through its perceiver instead.
    """

    image_side: int = 0
    image_places: bool = True
    """Tell the Thinker the row and column of each image position (no seed model does)."""
    mixture: InstructMixture = field(default_factory=InstructMixture)
    loop: LoopConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    thinker_rate: float = 1.0
    audio_rate: float = 0.2
    perceiver_rate: float = 0.2
    """Learning rates of the Thinker, the audio connector and an aligned image connector, as shares
    of a fresh image connector's.
    Speech starts out readable, and a full rate washes that away in a hundred updates; an aligned
    image connector loses what it says of unseen pairs even at a tenth, so `nano` leaves it alone,
    with 0 (LOG.md)."""
    hold_weight: float = 1.0
    """Weight of keeping the Thinker's states on text alone what they were, beside the answers."""
    warm_start_items: int = 800
    """Pictures that a fresh image connector is first fitted to; 0 starts it, and the audio
    connector, at random."""
    spell: bool = True
    """Let the audio connector also say what the recogniser hears, as soft text."""
    eval_items: int = 200
    min_seen: float = 0.95
    min_unseen: float = 0.85
    min_unseen_captions: float = 0.90
    min_counts: float = 0.90
    min_places: float = 0.90
    min_compare: float = 0.85
    """Of questions that count, that ask where things stand, which of two pictures has something,
    and about a picture that came in a later turn; 0 measures without judging."""
    min_follow: float = 0.90
    max_text_loss: float = 1.10
    max_wer: float = 0.10


def load_model(context: StageContext, config: InstructConfig) -> OmniModel:
    """The earlier stages' parts, joined by fresh connectors."""
    thinker = load_part(context.parents["pretrain_text"], "thinker")
    vision = load_part(context.parents["train_vision_encoder"], "vision")
    audio = load_part(context.parents["train_audio_encoder"], "audio")
    assert isinstance(thinker, Thinker)
    assert isinstance(vision, VisionTower) and isinstance(audio, AudioTower)
    torch.manual_seed(context.seed)
    ears = LinearConnectorConfig(
        source_width=audio.config.encoder.width,
        target_width=thinker.config.width,
        symbols=audio.config.symbols + 1 if config.spell else 0,
    )
    return OmniModel(
        thinker,
        vision=vision,
        image_connector=_eyes(context, config, thinker, vision),
        audio=audio,
        audio_connector=LinearConnector(ears),
    )


def _eyes(
    context: StageContext, config: InstructConfig, thinker: Thinker, vision: VisionTower
) -> LinearConnector | PerceiverConnector:
    """The aligned perceiver, or a fresh linear connector where there is none."""
    aligned = context.parents.get("align_connector")
    if aligned is not None:
        connector = load_part(aligned, "image_connector")
        assert isinstance(connector, PerceiverConnector)
        return connector
    return LinearConnector(
        LinearConnectorConfig(
            source_width=vision.config.encoder.width,
            target_width=thinker.config.width,
            side=config.image_side,
            places=config.image_places,
        )
    )


def warm_start(
    model: OmniModel, data: InstructData, layout: Layout, config: InstructConfig
) -> None:
    """Let the connectors start in the Thinker's own embeddings, before any training."""
    assert model.vision is not None and model.image_connector is not None
    assert model.audio is not None and model.audio_connector is not None
    eyes, ears, codec = model.image_connector, model.audio_connector, layout.text_codec
    table = model.thinker.token_table.weight.detach()
    size = float(table.square().mean().sqrt())
    if isinstance(eyes, PerceiverConnector):
        if not config.perceiver_rate:
            freeze(eyes)
        if eyes.symbol_table is not None:
            eyes.symbol_table.requires_grad_(False)  # the Thinker's own table is frozen too
    elif config.warm_start_items:
        fit_eyes(model, data.pictures(config.warm_start_items), codec)
        eyes.scale_places(size)
    if config.warm_start_items and ears.spell is not None:
        start_ears(ears, model.audio, table, codec.special(SILENCE))
        freeze(ears.spell)


def fit_eyes(model: OmniModel, pictures: Sequence[PictureItem], codec: TextCodec) -> None:
    """Fit the image connector's linear map to the words of captions and regions."""
    assert isinstance(model.vision, VisionTower)
    assert isinstance(model.image_connector, LinearConnector)
    pixels = normalise([picture.image for picture in pictures])
    side = model.image_connector.config.side
    described = [
        Described(
            caption=codec.encode(" " + picture.caption),
            regions=[
                (codec.encode(" " + region.text.replace(f" {UNTOLD}", "")), region.cells(side))
                for region in picture.regions
                if side
            ],
        )
        for picture in pictures
    ]
    table = model.thinker.token_table.weight.detach()
    start_eyes(model.image_connector, model.vision, table, pixels, described)


def run(context: StageContext) -> Report:
    """Train, measure, save `thinker` and the connectors."""
    config: InstructConfig = context.config
    model = load_model(context, config)
    assert model.vision is not None and model.audio is not None
    freeze(model.vision)
    freeze(model.audio)
    model.thinker.token_table.weight.requires_grad_(False)
    frozen = fingerprint(model.vision), fingerprint(model.audio)
    layout = layout_of(context, model)
    data, notes = open_data(context, config, model, layout)
    plain = plain_texts(data, layout, TEXTS * config.eval_items, model.thinker)
    before, _ = heldout_losses(model.thinker, plain)
    warm_start(model, data, layout, config)
    groups = groups_of(config.loop, layout, data, context.seed, model.thinker)
    task = InstructTask(model, groups, config.hold_weight)
    fit(task, config.loop, config.optim, site_of(context), rates_of(config, model))
    model.eval()
    if frozen != (fingerprint(model.vision), fingerprint(model.audio)):
        raise RuntimeError("a frozen tower changed during training")
    for name in ("thinker", "image_connector", "audio_connector"):
        save_part(context.out, name, getattr(model, name))
    examiner = Examiner(model=model, layout=layout, data=data)
    metrics, asked = measure(config, examiner, context)
    metrics["text.loss_ratio"] = bootstrap_ratio(heldout_losses(model.thinker, plain)[0], before)
    metrics["speech.readback_wer"] = read_back(context, model, layout, config.eval_items // 2)
    write_examples(context, data, asked)
    return Report(metrics=metrics, notes=notes)


def layout_of(context: StageContext, model: OmniModel) -> Layout:
    """How conversations become ids, as the text stage settled it."""
    text = context.parents["pretrain_text"]
    settings = load_settings(text)
    return Layout(
        text_codec=TextCodec.load(text.file("tokenizer.json")),
        template=settings.template,
        mel=settings.mel,
        image_positions=model.image_positions,
    )


def open_data(
    context: StageContext, config: InstructConfig, model: OmniModel, layout: Layout
) -> tuple[InstructData, dict[str, str]]:
    """What is learned from; and notes, also said, about other people's data that is too long."""
    assert model.vision is not None and model.audio is not None
    fits = audible(layout, model.audio.config.max_frames, model.thinker.config.max_positions)
    data = InstructData(config.mixture, context.seed, model.vision.config.image_size, fits)
    notes = {}
    for name, talks in data.finite().items():
        most = model.thinker.config.max_positions
        said = cut_note(name, talks, layout, most, "the Thinker's max_positions")
        if said:
            context.progress.say(said)
            notes[f"cut: {name}"] = said
    return data, notes


def audible(layout: Layout, frames: int, positions: int) -> Fits:
    """What speech can be written down whole: cut, its transcript would say more than is heard."""
    request = Turn(role="user", text=max(WRITE_DOWN, key=len))

    def fits(text: str, seconds: float) -> str:
        heard = audio_positions(layout.mel.frames(math.ceil(seconds * layout.mel.rate)))
        said = layout.encode((request, Turn(role="assistant", text=copied(text))))
        whole = heard + 2 + len(said)  # with the sound's two markers
        if heard <= frames and whole <= positions:
            return ""
        return (
            f"{seconds:.1f} s of sound take {heard} frames, {whole} positions with its text, but "
            f"the tower has {frames} and the Thinker {positions}; cut it"
        )

    return fits


def plain_texts(data: InstructData, layout: Layout, count: int, thinker: Thinker) -> list[Encoded]:
    """Held-out text, to be no worse at."""
    talks = [data.item("seen", i, "text").turns for i in range(data.count("seen", "text", count))]
    return [shorten(layout.encode(turns), thinker.config.max_positions) for turns in talks]


def groups_of(
    loop: LoopConfig, layout: Layout, data: InstructData, seed: int, thinker: Thinker
) -> LengthGroups[Encoded]:
    """Training conversations, those of like lengths together."""
    return LengthGroups(
        lambda i: shorten(layout.encode(data.item("train", i).turns), thinker.config.max_positions),
        batch_size=loop.batch_size,
        seed=seed,
        parts=loop.accumulate,
        echo=loop.echo,
    )


def rates_of(config: InstructConfig, model: OmniModel) -> dict[str, float]:
    """Learning rates as shares of a fresh image connector's."""
    rates = {"thinker.": config.thinker_rate, "audio_connector.": config.audio_rate}
    if isinstance(model.image_connector, PerceiverConnector):
        rates["image_connector."] = config.perceiver_rate
    return rates


def measure(
    config: InstructConfig, examiner: Examiner, context: StageContext
) -> tuple[dict[str, Metric], list[Asked]]:
    """Every task on held-out data, and the swaps; with what was asked and said."""
    count, metrics, kept = config.eval_items, {}, []
    world, spoken = config.mixture.pictures == "world", config.mixture.text == "world"
    plan = [("caption", "seen"), ("write_down", "seen"), ("text", "seen")]
    if world:
        plan += [("caption", "unseen"), ("look", "seen"), ("look", "unseen")]
        plan += [("spoken", "seen")] if spoken else []
        plan += [("spoken_look", "seen"), ("compare", "seen")]
        plan += [("count", "seen"), ("relation", "seen")]
        plan += [("later", "seen")] if config.mixture.later else []
    with context.progress.task("asking", total=len(plan), unit="task") as bar:
        for task, split in plan:
            asked = examiner.task(task, split, count)
            left = examiner.data.count(split, task, count) - len(asked)
            if left:
                context.progress.say(
                    f"{context.name}: {left} held-out conversations of {task} leave the Thinker no "
                    "room to answer and are not asked"
                )
            name = f"{task}.right" + ("" if split == "seen" else ".unseen")
            metrics[name] = share(asked)
            if task == "write_down":
                metrics["write_down.wer"] = heard_words(asked)
            kept += asked[:12]
            bar.update(1)
    if world:
        metrics["swap.picture"] = picture_swap(examiner, count)
        if spoken:
            metrics["swap.sound"] = sound_swap(examiner, count)
        metrics["look.right.grey_picture"] = blind_gap(examiner, count)
    return metrics, kept


def read_back(context: StageContext, model: OmniModel, layout: Layout, count: int) -> Metric:
    """The Talker must still be understood when it reads the new Thinker's states."""
    codec, mel = layout.text_codec, layout.mel
    talker = load_part(context.parents["train_talker"], "talker")
    speech = load_part(context.parents["train_codecs"], "speech_codec")
    source = open_speech("world-narrator", context.seed)
    texts = [source.item("seen", i).text for i in range(count)]
    states = reply_states(model.thinker, codec, layout.template, texts)
    sounds = []
    for state in states:
        codes = talk(talker, state).codes  # type: ignore[arg-type]
        rebuilt = speech.decode(codes)  # type: ignore[operator]
        sounds.append(np.asarray(vocode(rebuilt, mel), dtype=np.float32))
    assert model.audio is not None
    return word_errors(texts, transcribe(model.audio, codec, mel, sounds))


def write_examples(context: StageContext, data: InstructData, asked: Sequence[Asked]) -> None:
    """What was asked and said, with the pictures, for the report."""
    lines = []
    for one in asked:
        row = asdict(one)
        if one.task in ("caption", "look", "spoken_look"):
            row["picture"] = f"pictures/{one.task}_{one.split}_{one.index}.png"
            item = data.item(one.split, one.index, one.task)
            save_png(context.out / row["picture"], item.turns[0].images[0])
        lines.append(json.dumps(row, ensure_ascii=False))
    atomic_write_text(context.out / "examples.jsonl", "\n".join(lines) + "\n")


def checks(config: InstructConfig) -> tuple[Check, ...]:
    """The gate."""
    if config.eval_items < 20:
        raise InputError(f"eval_items is {config.eval_items}; a gate needs at least 20 items")
    check = partial(Check, min_n=min(100, config.eval_items // 2))
    found = [
        check(
            metric="text.loss_ratio",
            op="<=",
            threshold=config.max_text_loss,
            why="learning to see and hear must not cost the text",
        ),
    ]
    if config.mixture.pictures != "world":
        return tuple(found)
    # Spoken questions are the micro-world's text; who learns other text is asked none.
    silent = ("spoken.right", "swap.sound") if config.mixture.text != "world" else ()
    for name, least in (
        ("caption.right", config.min_seen),
        ("caption.right.unseen", config.min_unseen_captions),
        ("look.right", config.min_seen),
        ("look.right.unseen", config.min_unseen),
        ("count.right", config.min_counts),
        ("relation.right", config.min_places),
        ("compare.right", config.min_compare),
        ("later.right", config.min_compare if config.mixture.later else 0),
        ("spoken.right", config.min_unseen),
        ("spoken_look.right", config.min_unseen),
    ):
        why = "held-out pictures and questions must be described and answered rightly"
        if least and name not in silent:
            found.append(check(metric=name, op=">=", threshold=least, why=why))
    why = "an answer that does not follow its input ignores it"
    for metric in sorted({"swap.picture", "swap.sound"} - set(silent)):
        found.append(check(metric=metric, op=">=", threshold=config.min_follow, why=why))
    found.append(
        check(
            metric="speech.readback_wer",
            op="<=",
            threshold=config.max_wer,
            why="the Talker must still be understood with the new Thinker",
        )
    )
    return tuple(found)
