"""What the benchmark of shards works on: made-up shards, and media with codecs of nano's shapes.

Knows: random codes; scenes and speech of the micro-world, or noise. Does not know: how they are
measured. Costs: seconds; 8 ms a spoken sentence.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lumoomni.artifacts import ArtifactWriter
from lumoomni.codecs.facts import CodecFacts
from lumoomni.codecs.image_vq import ImageCodec
from lumoomni.codecs.ink_form import InkAndForm
from lumoomni.codecs.quantiser import nearest
from lumoomni.codecs.speech_rvq import SpeechCodec
from lumoomni.codecs.stored import image_entry, load_codecs, save_entries, speech_entry
from lumoomni.codecs.text import TextCodec
from lumoomni.data.manifest import Asset, Record, write_manifest
from lumoomni.data.shards import ShardNote, shard_bytes
from lumoomni.data.world.scene import draw, make_scene
from lumoomni.data.world.sentences import sentence
from lumoomni.data.world.speech import NARRATOR, RATE, synthesize
from lumoomni.gates import Check, Report, exact, judge
from lumoomni.infer.assemble import save_part
from lumoomni.media.audio import Audio, save_wav
from lumoomni.media.image import normalise, save_png
from lumoomni.media.mel import MelConfig, log_mel
from lumoomni.recipes import resolve
from lumoomni.runtime import atomic_write_bytes, atomic_write_json
from lumoomni.uti.folder import KIND, TOKENIZER
from lumoomni.uti.space import new_space
from lumoomni.uti.space_file import save_space

ROWS = 1000
CODES = 256


def write_shards(folder: Path, count: int) -> Path:
    """A finished set of `count` shards of ROWS rows: 24 ids of text and a picture of CODES."""
    facts = CodecFacts(
        kind="image", name="made-up", weights="", codebooks=1, codebook_size=8192, tokens=CODES
    )
    space = new_space(32_000, "", [facts])
    stream = np.random.default_rng(0)
    files = {}
    for number in range(count):
        rows = [
            {
                "id": f"row-{number:05d}-{i:05d}",
                "source": "made up",
                "task": "i2t",
                "split": "train",
                "official": "",
                "text": stream.integers(0, 32_000, 24).astype(np.int32),
                "prompt": np.zeros(0, dtype=np.int32),
                "image": stream.integers(0, 8192, CODES).astype(np.int32),
                "audio": np.zeros(0, dtype=np.int32),
                "frames": 0,
                "image_sha256": f"{i:064x}",
                "audio_sha256": "",
                "meta": {"size": [256, 256]},
            }
            for i in range(ROWS)
        ]
        data = shard_bytes(rows, ShardNote(abi=space.abi, inputs=str(number)))
        name = f"train/shard-{number:05d}.arrow"
        atomic_write_bytes(folder / name, data)
        hashed = hashlib.sha256(data).hexdigest()
        files[name] = {"sha256": hashed, "bytes": len(data), "rows": ROWS}
    index = {
        "schema": 1,
        "abi": space.abi,
        "space": space.meaning(),
        "manifest": "",
        "codec": {},
        "counts": {"train": {"rows": count * ROWS}},
        "files": files,
    }
    atomic_write_json(folder / "shards.json", index)
    return folder


def write_space(root: Path) -> Path:
    """Untrained codecs of nano's shapes: what they say is noise, what they cost is not. Codes lie
    among what the media are, as learned ones do, not all in one place."""
    torch.manual_seed(0)
    text = TextCodec.train([sentence(0, "train", i) for i in range(200)], 512)
    stages = {stage.name: stage.config for stage in resolve("nano").stages}
    shape = replace(stages["train_sound_codec"].speech, n_mels=MelConfig().n_mels)
    speech = SpeechCodec(shape).eval()
    picture = ImageCodec(stages["train_image_codec"].codec).eval()
    _spread(speech, picture)
    folder = root / "space"
    report = Report(metrics={"made": exact(1.0)})
    checks = (Check(metric="made", op=">=", threshold=1.0, why=""),)
    with ArtifactWriter(folder) as writer:
        save_part(writer.folder, "speech_codec", speech)
        save_part(writer.folder, "image_codec", picture)
        entries = {"image": image_entry(), "audio": speech_entry(MelConfig())}
        save_entries(writer.folder, entries)  # type: ignore[arg-type]
        text.save(writer.folder / TOKENIZER)
        codecs = load_codecs(writer.folder)
        space = new_space(text.vocab_size, text.hash, [one.facts for one in codecs.values()])
        save_space(writer.folder, space)
        writer.commit(
            kind=KIND,
            config=entries,
            parents={},
            seed=0,
            report=report,
            checks=checks,
            verdict=judge(report, checks),
            abi=space.abi,
        )
    return folder


@torch.no_grad()
def _spread(speech: SpeechCodec, picture: ImageCodec) -> None:
    """Codebooks of vectors that speech has; levels in the middle of what pictures have."""
    heard = [log_mel(torch.from_numpy(_spoken(i))[None], MelConfig()) for i in range(32)]
    whole = [torch.tensor([mel.shape[1]]) for mel in heard]
    folded = [speech._fold(mel, frames) for mel, frames in zip(heard, whole, strict=True)]
    _centre(speech.encode_out, torch.cat([speech._latents(*one)[0] for one in folded]))
    left = torch.cat([speech._latents(*one)[0] for one in folded])
    for book in speech.quantiser.codebooks:
        mixed = left[torch.randperm(len(left))]
        # Silence is in all of them, and a book that learns has one code for it.
        apart = torch.cdist(mixed, mixed) > 1e-3 * left.norm(dim=1).max()
        first = (apart | torch.ones_like(apart).triu()).all(1)
        book.copy_(mixed[first][: len(book)])
        left = left - book[nearest(left, book)]
    seen = picture._encoded(normalise([_scene(i) for i in range(64)])).flatten(0, 1)
    assert isinstance(picture.encoder, InkAndForm)
    digits = picture.config.ink_digits
    _centre(list(picture.encoder.ink)[-1], seen[:, :digits])
    _centre(list(picture.encoder.form)[-1], seen[:, digits:])


def _centre(last: nn.Module, found: torch.Tensor) -> None:
    """Make a layer, which gives `found` [n, C], give each component mean 0 and deviation 1."""
    assert isinstance(last, nn.Linear | nn.Conv1d) and last.bias is not None
    last.weight.div_(found.std(0).reshape(-1, *[1] * (last.weight.ndim - 1)))
    last.bias.sub_(found.mean(0)).div_(found.std(0))


def _spoken(number: int) -> np.ndarray:
    return synthesize(sentence(0, "train", number), NARRATOR).samples


def _scene(number: int) -> np.ndarray:
    return draw(make_scene(0, "train", number))


def write_manifest_of_media(folder: Path, count: int, *, noise: bool = False) -> Path:
    """As many pictures as sounds, and captions: scenes of 64 x 64 and spoken sentences of the
    world, or noise of 256 x 256 and of two seconds."""
    folder.mkdir(parents=True)
    stream = np.random.default_rng(0)
    records = []
    for number in range(count):
        name = f"{number:05d}"
        path = folder / f"{name}{'.wav' if number % 2 else '.png'}"
        if number % 2:
            sound = 0.1 * stream.standard_normal(32_000) if noise else _spoken(number)
            save_wav(path, Audio(sound.astype(np.float32), RATE))
        elif noise:
            save_png(path, stream.integers(0, 256, (256, 256, 3), dtype=np.uint8))
        else:
            save_png(path, _scene(number))
        found = Asset(path=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        records.append(
            Record(
                id=name,
                source="made up",
                task="a2t" if number % 2 else "i2t",
                text=sentence(0, "train", number),
                image=None if number % 2 else found,
                audio=found if number % 2 else None,
                split="train",
            )
        )
    path = folder / "manifest.jsonl"
    write_manifest(path, records, source="made up")
    return path
