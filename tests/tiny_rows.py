"""A small build with new rows on a small Thinker: the artifacts that stages would leave."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lumoomni.artifacts import Artifact, ArtifactWriter
from lumoomni.codecs.facts import CodecFacts
from lumoomni.gates import Check, Report, judge, wilson
from lumoomni.infer.assemble import ModelSettings, base_hash, save_part, save_settings
from lumoomni.model.lora import LoraSettings, adapters, attach, save_adapter
from lumoomni.model.rows import Rows, RowsConfig, start_from_text
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.uti.space import TokenSpace, new_space
from lumoomni.uti.space_file import save_space
from tests.tiny import MEL, text_codec

REPORT = Report(metrics={"right": wilson(9, 10)})
MARKERS = 4
"""Of the new ids; those after them are of media."""
CHECKS = (Check(metric="right", op=">=", threshold=0.5, why="it must be | right"),)


@dataclass(frozen=True)
class Named:
    """The config of a stage."""

    name: str


def commit(folder: Path, write: Callable[[Path], None], *parents: Artifact) -> Artifact:
    """An artifact whose folder names its stage; it passed."""
    with ArtifactWriter(folder) as writer:
        write(writer.folder)
        return writer.commit(
            kind=folder.name,
            config=Named(folder.name),
            parents={one.kind: one.hash for one in parents},
            seed=7,
            report=REPORT,
            checks=CHECKS,
            verdict=judge(REPORT, CHECKS),
        )


def thinker(*, tied: bool = True, short_conv: int = 0, seed: int = 0) -> Thinker:
    """Random, with weights large enough that logits tell models apart."""
    torch.manual_seed(seed)
    made = Thinker(
        ThinkerConfig(
            vocab_size=text_codec().vocab_size,
            width=32,
            layers=2,
            heads=2,
            kv_heads=1,
            head_width=16,
            ffn_width=48,
            tied=tied,
            short_conv=short_conv,
            max_positions=256,
        )
    )
    for name, parameter in made.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    return made.eval()


def space(book: int = 16) -> TokenSpace:
    """Text and a picture codec of `book` codes."""
    codec = text_codec()
    picture = CodecFacts(
        kind="image", name="p", weights="0", codebooks=1, codebook_size=book, tokens=4
    )
    return new_space(codec.vocab_size, codec.hash, (picture,))


def write_rows(
    out: Path, made: Thinker, *, lora: bool = False, book: int = 16, maker: bool = False
) -> Path:
    """A build directory: a Thinker, perhaps adapters on it, a token space, rows on all of them, and
    perhaps a maker."""
    codec, found, taps = text_codec(), space(book), made.config.short_conv

    def text(folder: Path) -> None:
        save_part(folder, "thinker", made)
        codec.save(folder / "tokenizer.json")
        save_settings(folder, ModelSettings(mel=MEL, context_tokens=64))

    def adapt(folder: Path) -> None:
        settings = LoraSettings(rank=2, alpha=8.0)
        attach(made, settings)
        for layer in adapters(made).values():
            torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.2)
        save_adapter(folder, made, settings, base_hash(line[0]))

    def rows(folder: Path) -> None:
        config = RowsConfig(
            start=made.config.vocab_size,
            count=len(found.new_rows),
            width=made.config.width,
            tied=made.config.tied,
            markers=MARKERS,
        )
        new = Rows(config)
        start_from_text(new, made, seed=1, spread=1.0)
        save_part(folder, "rows", new)
        if maker:
            save_part(folder, "maker", thinker(tied=made.config.tied, short_conv=taps, seed=9))

    line = [commit(out / "pretrain_text", text)]
    line += [commit(out / "instruct", adapt, line[0])] if lora else []
    line.append(commit(out / "build_token_space", lambda to: save_space(to, found), line[0]))
    line.append(commit(out / "train_rows", rows, *line))
    names = {one.kind: {} for one in line}
    (out / "recipe.json").write_text(json.dumps({"stages": names}))
    return out
