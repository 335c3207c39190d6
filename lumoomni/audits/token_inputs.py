"""What a token space is audited with: texts, pictures and sounds, held out or a user's files.

Knows: the micro-world's held-out splits, and texts that tokenizers stumble over.
Does not know: codecs beyond their facts. Costs: 6 ms a sentence, 0.4 ms a picture.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lumoomni.codecs.facts import CodecFacts, Kind
from lumoomni.data.sample import take
from lumoomni.data.sources import open_pictures, open_speech
from lumoomni.media.audio import Audio, load_audio
from lumoomni.media.image import load_image
from lumoomni.uti.interface import samples_for
from lumoomni.uti.space import SPECIALS, TokenSpace

HARD_TEXTS = (
    "",
    " ",
    "  two  spaces  and a tab\t.",
    "\n\nlines\r\n",
    " leading and trailing ",
    "no-break\u00a0space, zero\u200bwidth, soft\u00adhyphen",
    "naïve café, cafe\u0301 the other way",
    "数と漢字、仮名 カタカナ",
    "שלום עולם مرحبا بالعالم",
    "🙂 👩‍👩‍👧‍👦 🇬🇧 👍🏽",
    "\u0000 \u0007 \u001b[31m \ufffd \ufeff",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff",
    "x = {'a': [1, 2]}  # <b>&amp;</b> \\n %s",
    "0123456789 1,000,000.00 -1e-9",
    *SPECIALS,
    "<|text_end|><|gen_img|><|img_start|>",
    "<|im_start|>system\n<|im_end|><|endoftext|></s><s>[INST]<pad><unk>",
    "<image_patch><audio_frame>",
    "a" * 300,
)
"""Unicode, white space, and special symbols spelled as plain text."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """texts, pictures uint8 [H, W, 3] and sounds, with a name each for a person."""

    texts: tuple[str, ...] = ()
    pictures: tuple[np.ndarray, ...] = ()
    sounds: tuple[Audio, ...] = ()
    names: dict[Kind, tuple[str, ...]] = field(default_factory=dict)

    def of(self, facts: CodecFacts) -> list[np.ndarray]:
        """The media of a codec's kind as the interface hands them to it."""
        if facts.kind == "image":
            return [load_image(one) for one in self.pictures]
        return [samples_for(one, facts) for one in self.sounds]

    def digest(self, kind: str) -> str:
        """SHA-256 of the media or texts as they came, in their order."""
        found = hashlib.sha256()
        if kind == "text":
            parts: list[Any] = [(text.encode(), len(text)) for text in self.texts]
        elif kind == "image":
            parts = [(one.tobytes(), one.shape) for one in self.pictures]
        else:
            parts = [(one.samples.tobytes(), (one.samples.shape, one.rate)) for one in self.sounds]
        for data, facts in parts:
            found.update(repr(facts).encode() + b"\0" + data)
        return found.hexdigest()


def held_out(
    space: TokenSpace,
    *,
    pictures: int,
    sentences: int,
    seed: int = 0,
    picture_files: Sequence[Path] = (),
    sound_files: Sequence[Path] = (),
) -> Inputs:
    """Inputs of the kinds that a space has: files where some are given, else the micro-world's.

    Pictures hold pairs of colour and shape that training never shows; sentences are held-out ones.
    Raises InputError for a file that cannot be read, and for files of a kind the space has not.
    """
    texts, shown, heard = list(HARD_TEXTS), [], []
    names: dict[Kind, tuple[str, ...]] = {}
    kinds = {codec.kind for codec in space.codecs}
    if picture_files:
        space.codec("image")  # names what is missing
        shown = [load_image(path) for path in picture_files]
        names["image"] = tuple(path.name for path in picture_files)
    elif "image" in kinds:
        source = open_pictures("world", seed, space.codec("image").image_size or None)
        items = take(source, "unseen", pictures)
        shown, said = [item.image for item in items], tuple(item.caption for item in items)
        names["image"], texts = said, texts + list(said)
    if sound_files:
        rate = space.codec("audio").sample_rate
        heard = [load_audio(path, rate) for path in sound_files]
        names["audio"] = tuple(path.name for path in sound_files)
    elif "audio" in kinds:
        spoken = take(open_speech("world-narrator", seed), "seen", sentences)
        heard = [Audio(item.samples, 16000) for item in spoken]
        names["audio"] = tuple(item.text for item in spoken)
        texts += [item.text for item in spoken]
    return Inputs(texts=tuple(texts), pictures=tuple(shown), sounds=tuple(heard), names=names)
