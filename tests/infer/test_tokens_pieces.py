"""Token spaces of a base model's tokenizer and published codecs: built, opened, refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from typer.testing import CliRunner

from lumoomni.cli import app
from lumoomni.codecs.pretrained import CodecOptions
from lumoomni.codecs.text import TextCodec
from lumoomni.errors import InputError
from lumoomni.infer.tokens import Pieces, build_from
from lumoomni.media.audio import Audio, load_audio, save_wav
from lumoomni.media.image import load_image, save_png
from lumoomni.uti.interface import UTI
from tests.codecs.tiny_codecs import picture, sound, write_codec

RUN = CliRunner()
IMAGE = CodecOptions(image_size=32)


def write_base(folder: Path, rows: int = 400) -> Path:
    """A base model's folder with a tokenizer as Qwen3's: NFC, byte-level, and added symbols of
    which some are special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["a small red circle", "what is said?"] * 20, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(["<think>", "</think>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "vocab_size": rows}))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pieces")
    write_base(root / "base")
    for name in ("encodec", "encodec48", "emu3", "chameleon"):
        write_codec(root / name, name)
    pieces = Pieces(
        text=root / "base",
        image=str(root / "emu3"),
        audio=str(root / "encodec"),
        image_options=IMAGE,
    )
    build_from(pieces, root / "space")
    return root


def test_a_space_of_qwen3_emu3_and_encodec_stands_alone(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "space", tmp_path / "moved")
    uti = UTI.load(tmp_path / "moved")
    found = [(one.name, one.start, one.end) for one in uti.space.ranges]
    assert found == [
        ("TEXT", 0, 399),
        ("SPECIAL", 400, 463),
        ("IMAGE", 464, 527),
        *[(f"AUDIO_CB{q}", 528 + 64 * q, 591 + 64 * q) for q in range(4)],
    ]
    for said in ("a red circle", "<|im_end|> é 数", "<think> so </think>", " a"):
        assert uti.decode(uti.encode(said)) == said
    shown, heard = picture(1), Audio(sound(1, 20_000), 24000)
    spans = uti.encode_batch([heard, "and", shown])
    assert spans[2].meta == {"size": [40, 60]} and len(spans[2].ids) == 64
    back = [uti.decode(span) for span in uti.unpack(uti.join(spans), [s.meta for s in spans])]
    assert isinstance(back[0], Audio) and back[0].samples.shape == (20_000,)
    assert back[1] == "and" and isinstance(back[2], np.ndarray) and back[2].shape == (32, 32, 3)
    assert UTI.load(root / "space").space.abi == uti.space.abi


def test_a_changed_or_other_codec_is_refused_with_both_hashes(root: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(root / "space", tmp_path / "space"))
    path = folder / "audio_codec" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"was changed: its SHA-256 is \w+\.\.\., the manifest"):
        UTI.load(folder)
    one = UTI.load(root / "space")
    base, image, audio = root / "base", str(root / "emu3"), str(root / "encodec")
    books, half = CodecOptions(books=2), CodecOptions(image_size=16)
    few = build_from(Pieces(text=base, audio=audio, audio_options=books), tmp_path / "few")
    with pytest.raises(InputError, match="names emu3-vq, but no such codec is loaded"):
        UTI(one.space, one.text_codec, few.codecs)
    other = build_from(Pieces(text=base, image=image, image_options=half), tmp_path / "small")
    mixed = {**one.codecs, "image": other.codecs["image"]}
    with pytest.raises(InputError, match="ids would mean other things"):
        UTI(one.space, one.text_codec, mixed)
    assert len({one.space.abi, few.space.abi, other.space.abi}) == 3


def test_what_cannot_be_built_is_refused(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    base, emu3, encodec = root / "base", str(root / "emu3"), str(root / "encodec")
    ids = TextCodec.load(base / "tokenizer.json").vocab_size
    with pytest.raises(InputError, match=f"has {ids} ids, but the text table is to have {ids - 1}"):
        build_from(Pieces(text=base, text_size=ids - 1), out)
    with pytest.raises(InputError, match="of kind audio; give one of kind image"):
        build_from(Pieces(text=base, image=encodec), out)
    with pytest.raises(InputError, match="of kind image; give one of kind audio"):
        build_from(Pieces(text=base, audio=emu3), out)
    alone = tmp_path / "tokenizer.json"
    shutil.copyfile(base / "tokenizer.json", alone)
    with pytest.raises(InputError, match="the base model's table is unknown; give its rows"):
        build_from(Pieces(text=alone), out)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="names no vocab_size"):
        build_from(Pieces(text=alone), out)
    assert not out.exists() and not [p for p in tmp_path.iterdir() if "out" in p.name]
    uti = build_from(Pieces(text=alone, text_size=ids), out)
    assert uti.space.size == ids + 64 and UTI.load(out).space == uti.space
    with pytest.raises(InputError, match="is not empty"):
        build_from(Pieces(text=base), out)


def test_the_seeds_layout_is_built_to_the_id(root: Path, tmp_path: Path) -> None:
    """151,669 ids of text, 64 symbols, a picture codec of 8,192 and EnCodec's 4 books of 1,024."""
    image = write_codec(tmp_path / "image", "emu3", 8192)
    audio = write_codec(tmp_path / "audio", "encodec48", 1024)
    pieces = Pieces(
        text=root / "base",
        text_size=151_669,
        image=str(image),
        audio=str(audio),
        image_options=IMAGE,
    )
    space = build_from(pieces, tmp_path / "seed").space
    ends = {one.name: one.end for one in space.ranges}
    assert ends == {
        "TEXT": 151_668,
        "SPECIAL": 151_732,
        "IMAGE": 159_924,
        **{f"AUDIO_CB{q}": 160_948 + 1024 * q for q in range(4)},
    }
    assert space.size == 164_021


def test_the_commands_build_and_take_pictures_and_stereo_sound(root: Path, tmp_path: Path) -> None:
    space, ids, out = str(tmp_path / "space"), tmp_path / "ids.json", tmp_path / "out"
    made = RUN.invoke(
        app,
        [
            *("tokens", "build", space, "--text", str(root / "base"), "--text-size", "512"),
            *("--image", str(root / "chameleon"), "--audio", str(root / "encodec48"), "--json"),
        ],
    )
    assert made.exit_code == 0, made.output
    built = json.loads(made.stdout.strip().splitlines()[-1])
    assert built["ranges"][1] == ["SPECIAL", 512, 575] and built["codecs"][1]["channels"] == 2
    save_wav(tmp_path / "a.wav", Audio(sound(1, 60_000), 48000))
    save_png(tmp_path / "b.png", picture(2))
    parts = ["look", str(tmp_path / "b.png"), str(tmp_path / "a.wav")]
    done = RUN.invoke(app, ["tokens", "encode", space, *parts, "--out", str(ids)])
    assert done.exit_code == 0, done.output
    data = json.loads(ids.read_text())
    assert len(data["meta"]) == 3 and len(data["meta"][2]["side"]["scales"]) == 2
    shown = RUN.invoke(app, ["tokens", "show", space])
    assert "only encodes" in shown.output
    assert "decodes with scales, last_frame_pad_length" in shown.output.replace("\n", " ")
    refused = RUN.invoke(app, ["tokens", "decode", space, str(ids), str(out)])
    assert refused.exit_code == 2 and "chameleon-vq only encodes" in refused.output
    RUN.invoke(app, ["tokens", "encode", space, "look", parts[2], "--out", str(ids)])
    assert RUN.invoke(app, ["tokens", "decode", space, str(ids), str(out)]).exit_code == 0
    assert load_audio(out / "1.wav", 48000).samples.shape == (60_000,)
    data = json.loads(ids.read_text())
    ids.write_text(json.dumps({"abi": data["abi"], "ids": data["ids"]}))
    refused = RUN.invoke(app, ["tokens", "decode", space, str(ids), str(out)])
    assert refused.exit_code == 2 and "cannot decode ids alone" in refused.output


def test_the_commands_give_pictures_back(root: Path, tmp_path: Path) -> None:
    space, ids, out = str(root / "space"), tmp_path / "ids.json", tmp_path / "out"
    save_png(tmp_path / "b.png", picture(2))
    arguments = ["tokens", "encode", space, str(tmp_path / "b.png"), "--out", str(ids)]
    assert RUN.invoke(app, arguments).exit_code == 0
    assert RUN.invoke(app, ["tokens", "decode", space, str(ids), str(out)]).exit_code == 0
    assert load_image(out / "0.png").shape == (32, 32, 3)
    for arguments, problem in (
        (["a", "b", "--text", str(root / "base")], "give OUT alone"),
        (["a"], "give MODEL and OUT"),
        (["a", "b", "--image", "c"], "brings its own codecs"),
    ):
        refused = RUN.invoke(app, ["tokens", "build", *arguments])
        assert refused.exit_code == 2 and problem in refused.output
