"""Text to ids and back: a byte-level BPE, lossless, with special ids that no text can spell.

Qwen3's composes accents first (Unicode NFC), as its models were trained; `composed` says what comes
back. Nothing else may be lost.

Knows: `tokenizers`, the special symbols and their ids, which ids are spoken aloud.
Does not know: roles, turns or media; `uti/sequence.py` composes those.
Costs: training on 20,000 short lines takes about a second; encoding a few microseconds a word.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lumoomni.errors import InputError
from lumoomni.runtime import atomic_write_bytes

SPECIALS = (
    "<|pad|>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|audio_start|>",
    "<|audio_end|>",
)
SMALLEST = 256 + len(SPECIALS)


class TextCodec:
    """One tokenizer. `encode` never yields a special id, whatever the text contains."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        # Files keep the last call's settings; text would be cut or filled up without a word.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._special = {
            token.content: index
            for index, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        }

    @classmethod
    def train(cls, lines: Iterable[str], vocab_size: int) -> "TextCodec":
        """Learn merges from `lines`. Raises InputError for a size that cannot hold all bytes."""
        if vocab_size < SMALLEST:
            raise InputError(
                f"a vocabulary of {vocab_size} cannot hold 256 bytes and {len(SPECIALS)} special "
                f"symbols; ask for at least {SMALLEST}"
            )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIALS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(lines, trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> "TextCodec":
        """Read a `tokenizer.json`. Raises InputError when it is missing or unreadable."""
        if not path.is_file():
            raise InputError(f"no tokenizer at {path}; give a folder that holds tokenizer.json")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises bare Exception for a malformed file
            raise InputError(f"{path} is not a tokenizer file: {error}") from error

    def save(self, path: Path) -> None:
        """Write `tokenizer.json` atomically."""
        atomic_write_bytes(path, self._tokenizer.to_str().encode())

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to vocab_size - 1."""
        return self._tokenizer.get_vocab_size()

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical tokenizer file."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    def special(self, name: str) -> int:
        """The id of a special symbol. Raises InputError when this tokenizer has none."""
        if name not in self._special:
            raise InputError(
                f"this tokenizer has no special symbol {name!r}; it has {sorted(self._special)}"
            )
        return self._special[name]

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; a special symbol's spelling is encoded like any other characters."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def composed(self, text: str) -> str:
        """What comes back of a text: itself, in NFC where this tokenizer composes."""
        composes = isinstance(self._tokenizer.normalizer, normalizers.NFC)
        return unicodedata.normalize("NFC", text) if composes else text

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special ids are left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def says(self, text: str) -> bool:
        """Whether any of a text is said aloud."""
        return bool(self.spoken[self.encode(text)].any())

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """For each id of `encode(text)`, the characters [start, end) that it covers."""
        return self._tokenizer.encode(text, add_special_tokens=False).offsets

    @cached_property
    def spoken(self) -> np.ndarray:
        """bool[V]: True where an id stands for letters or digits, so that it takes time to say."""
        flags = np.zeros(self.vocab_size, dtype=bool)
        special = set(self._special.values())
        for index in range(self.vocab_size):
            if index not in special:
                flags[index] = any(c.isalnum() for c in self._tokenizer.decode([index]))
        return flags
