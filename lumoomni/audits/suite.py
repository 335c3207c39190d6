"""`lumo eval`: every number that a finished model can be asked for, on held-out data.

Measures, never judges. A part that the model lacks is named in the notes, not skipped silently.
The independent judge is pocketsphinx with the grammar of the world's captions, when it is
installed. Costs: minutes for a few hundred items on two cores.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lumoomni.audits.ablation import ablate, by_length, label_facts
from lumoomni.audits.instructed import (
    Examiner,
    blind_gap,
    heard_words,
    picture_swap,
    share,
    sound_swap,
)
from lumoomni.audits.judge import judge_available, judge_hears, judged_captions
from lumoomni.audits.speech import derange, word_errors
from lumoomni.audits.text import share_right
from lumoomni.data.conversation import Encoded, picture_turns
from lumoomni.data.feeding import shorten
from lumoomni.data.mixture import DESCRIBE, InstructData, InstructMixture
from lumoomni.data.sample import take
from lumoomni.data.sources import open_pictures, open_speech
from lumoomni.data.world.language import exact_match
from lumoomni.data.world.speech import synthesize
from lumoomni.errors import InputError
from lumoomni.gates import Metric, Report, bootstrap_mean
from lumoomni.ids import IGNORE
from lumoomni.infer.answer import answer, answerable, omni_embedder
from lumoomni.infer.chat import Lumo
from lumoomni.infer.listen import transcribe
from lumoomni.model.vision import VisionTower
from lumoomni.runtime import Progress

SUITES = ("world", "pictures")
SEED = 0
LENGTHS = (10, 20)


def evaluate(
    model: Path,
    *,
    suite: str,
    count: int,
    progress: Progress,
    unproven: bool = False,
    data: str = "world",
) -> Report:
    """Measure the model at `model`; `data` is where the suite `pictures` takes them from.

    Raises InputError for an unknown suite or too few items.
    """
    if suite not in SUITES:
        raise InputError(f"there is no suite {suite!r}; use one of {', '.join(SUITES)}")
    if count < 10:
        raise InputError(f"{count} items are too few to measure anything; ask for 10 or more")
    lumo = Lumo.load(model, unproven=unproven)
    metrics: dict[str, Metric] = {}
    notes: dict[str, str] = {f"unproven {i}": s for i, s in enumerate(lumo.parts.unproven)}
    steps = _steps(suite, data)
    with progress.task("eval", total=len(steps), unit="part") as bar:
        for name, needed, measure in steps:
            missing = [part for part in needed if part not in lumo.parts.modules]
            if missing:
                notes[name] = f"not measured: this model has no {', '.join(missing)} yet"
            else:
                measure(lumo, count, metrics, notes)
            bar.update(1)
    return Report(metrics=metrics, notes=notes)


def _examiner(lumo: Lumo) -> Examiner:
    tower = lumo.parts.modules.get("vision")
    pixels = tower.config.image_size if tower is not None else 64  # type: ignore[union-attr]
    data = InstructData(InstructMixture(), SEED, pixels)  # type: ignore[arg-type]
    return Examiner(model=lumo.omni, layout=lumo.layout, data=data)


def _conversation(
    lumo: Lumo, count: int, metrics: dict[str, Metric], notes: dict[str, str]
) -> None:
    metrics["text.right"] = share(_examiner(lumo).task("text", "seen", count))


def _hearing(lumo: Lumo, count: int, metrics: dict[str, Metric], notes: dict[str, str]) -> None:
    source = open_speech("world", SEED)
    mel, codec = lumo.parts.settings.mel, lumo.parts.text_codec
    for split, name in (
        ("seen", "hearing.wer"),
        ("unseen", "hearing.wer_unheard_voices"),
        ("other", "hearing.wer_other_family"),
    ):
        items = [source.item(split, i) for i in range(count)]
        heard: list[str] = []
        for first in range(0, count, 32):
            clips = [item.samples for item in items[first : first + 32]]
            heard += transcribe(lumo.parts.need("audio"), codec, mel, clips)
        metrics[name] = word_errors([item.text for item in items], heard)


def _speaking(lumo: Lumo, count: int, metrics: dict[str, Metric], notes: dict[str, str]) -> None:
    source = open_speech("world-narrator", SEED)
    count = min(count, 100)
    texts = [source.item("seen", i).text for i in range(count)]
    sounds, firsts, factors = [], [], []
    for text in texts:
        began, first, chunks = time.perf_counter(), 0.0, []
        for chunk in lumo.stream_speech(text):
            first = first or time.perf_counter() - began
            chunks.append(chunk)
        total = time.perf_counter() - began
        sound = np.concatenate(chunks)
        sounds.append(sound)
        firsts.append(first / total)
        factors.append(total / (len(sound) / lumo.parts.settings.mel.rate))
    metrics["speech.first_audio_share"] = bootstrap_mean(firsts)
    metrics["speech.real_time_factor"] = bootstrap_mean(factors)
    tower, codec, mel = lumo.parts.need("audio"), lumo.parts.text_codec, lumo.parts.settings.mel
    heard = transcribe(tower, codec, mel, sounds)
    metrics["speech.readback_wer"] = word_errors(texts, heard)
    metrics["speech.readback_wer_wrong_text"] = word_errors(derange(texts), heard)
    if not judge_available():
        notes["independent judge"] = "not measured: pip install 'lumoomni[judge]' adds pocketsphinx"
        return
    captions = judged_captions(SEED, min(count, 40))
    judged = judge_hears([lumo.speak(text).samples for text in captions])
    metrics["speech.judge_wer"] = word_errors(captions, judged)
    metrics["speech.judge_wer_wrong_text"] = word_errors(derange(captions), judged)
    itself = judge_hears([synthesize(text).samples for text in captions])
    metrics["speech.judge_wer_espeak_itself"] = word_errors(captions, itself)


def _captions(
    lumo: Lumo, count: int, metrics: dict[str, Metric], notes: dict[str, str], *, data: str
) -> None:
    """Held-out pictures of any source: loss with the right and with wrong pictures, and wording."""
    tower = lumo.parts.need("vision")
    pixels = tower.config.image_size if isinstance(tower, VisionTower) else None
    source = open_pictures(data, SEED, pixels)
    items = take(source, "seen", count)
    encoded = [lumo.layout.encode(picture_turns(item, DESCRIBE)) for item in items]
    thinker = lumo.omni.thinker
    most = thinker.config.max_positions
    prompts = [picture_turns(item, DESCRIBE)[:-1] for item in items]
    asked = answerable(thinker, lumo.layout, prompts)
    shown = within(encoded, most)
    long = sum(len(made) > most for made in encoded)
    if long or len(asked) < len(items):
        notes["pictures"] = (
            f"of {len(items)} held-out conversations {long} are longer than the {most} positions "
            f"of the model and are cut to them; {len(items) - len(shown)} have no answer then and "
            f"are left out of the losses, {len(items) - len(asked)} leave no room for one and are "
            "not asked"
        )
    if not shown or not asked:
        raise InputError(f"{data}: {notes['pictures']}; hold out shorter ones")
    found = ablate(
        lumo.omni, list(shown.values()), [items[place].caption for place in shown], seed=SEED
    )
    metrics |= {**found.metrics(), **by_length(found, LENGTHS)}
    metrics |= label_facts(encoded, lumo.parts.settings.context_tokens)
    embed = omni_embedder(lumo.omni)
    said = answer(thinker, embed, lumo.layout, [prompts[place] for place in asked])
    wanted = [items[place].caption for place in asked]
    metrics["caption.words_wrong"] = word_errors(wanted, said)
    metrics["caption.exact"] = share_right(
        [exact_match(text, (best,)) for text, best in zip(said, wanted, strict=True)]
    )


def within(encoded: Sequence[Encoded], most: int) -> dict[int, Encoded]:
    """Conversations cut to `most` positions, by their places; those left without an answer are
    left out. Raises InputError where not even the first picture fits."""
    cut = {place: shorten(made, most) for place, made in enumerate(encoded)}
    return {p: made for p, made in cut.items() if (made.sequence.labels[1:] != IGNORE).any()}


def _seeing(lumo: Lumo, count: int, metrics: dict[str, Metric], notes: dict[str, str]) -> None:
    examiner = _examiner(lumo)
    for task in ("caption", "look", "compare", "later", "count", "relation"):
        for split in ("seen", "unseen"):
            asked = examiner.task(task, split, count)
            metrics[f"{task}.right" + (".unseen" if split == "unseen" else "")] = share(asked)
    metrics["swap.picture"] = picture_swap(examiner, count)
    metrics["look.right.grey_picture"] = blind_gap(examiner, count)


def _listening(lumo: Lumo, count: int, metrics: dict[str, Metric], notes: dict[str, str]) -> None:
    examiner = _examiner(lumo)
    asked = examiner.task("write_down", "seen", count)
    metrics["write_down.right"], metrics["write_down.wer"] = share(asked), heard_words(asked)
    metrics["spoken.right"] = share(examiner.task("spoken", "seen", count))
    metrics["swap.sound"] = sound_swap(examiner, count)


def _both(lumo: Lumo, count: int, metrics: dict[str, Metric], notes: dict[str, str]) -> None:
    metrics["spoken_look.right"] = share(_examiner(lumo).task("spoken_look", "seen", count))


Measure = Callable[[Lumo, int, dict[str, Metric], dict[str, str]], None]


def _steps(suite: str, data: str) -> tuple[tuple[str, tuple[str, ...], Measure], ...]:
    """(name, the parts that it needs, what measures it) for each part of a suite."""
    if suite == "pictures":
        return (("pictures", ("vision", "image_connector"), partial(_captions, data=data)),)
    return (
        ("conversation", ("thinker",), _conversation),
        ("hearing", ("audio",), _hearing),
        ("speaking", ("talker", "speech_codec"), _speaking),
        ("seeing", ("image_connector",), _seeing),
        ("listening", ("audio_connector",), _listening),
        ("spoken questions", ("image_connector", "audio_connector"), _both),
    )
