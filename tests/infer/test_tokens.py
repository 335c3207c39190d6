"""Token spaces of built models: there and back, the same every time, and never another codec's."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from lumoomni.cli import app
from lumoomni.codecs.facts import Coded
from lumoomni.errors import GateFailure, InputError
from lumoomni.infer.tokens import build_tokens, load_tokens
from lumoomni.media.audio import Audio, load_audio, save_wav
from lumoomni.uti.interface import UTI, TokenSpan
from lumoomni.uti.space import new_space
from tests.tiny import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tokens")
    build_tokens(write_model(root / "model"), root / "space")
    return root / "space"


def clip(seed: int = 0, rate: int = 16000) -> Audio:
    stream = np.random.default_rng(seed)
    return Audio((0.1 * stream.standard_normal(rate * 3 // 4)).astype(np.float32), rate)


def test_text_and_sound_come_back_from_their_ids(folder: Path) -> None:
    uti = load_tokens(folder)
    for said in ("a red circle", "<|text_end|> <|im_end|>", "数 é\n", ""):
        assert uti.decode(uti.encode(said)) == said
    span = uti.encode(clip())
    books = uti.space.books("audio")
    assert span.meta["frames"] * len(books) == len(span.ids)
    assert all(int(i) in books[q % len(books)] for q, i in enumerate(span.ids))
    back = uti.decode(span)
    assert isinstance(back, Audio) and back.rate == 16000
    assert abs(back.seconds - clip().seconds) < 0.1


def test_ids_do_not_depend_on_threads_company_or_rate_policy(folder: Path) -> None:
    uti, found = load_tokens(folder), {}
    wanted = [uti.encode(clip(seed)).ids for seed in range(4)]
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        assert all(np.array_equal(uti.encode(clip(s)).ids, wanted[s]) for s in (3, 1, 0, 2))
    finally:
        torch.set_num_threads(before)

    def encode(seed: int) -> None:
        found[seed] = uti.encode(clip(seed)).ids

    threads = [threading.Thread(target=encode, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[seed], wanted[seed]) for seed in range(4))
    assert any(not np.array_equal(wanted[0], other) for other in wanted[1:])


def test_mixtures_are_packed_between_markers_and_unpacked(folder: Path) -> None:
    uti = load_tokens(folder)
    ids = uti.pack(["what is said?", clip(), "a red circle"])
    assert uti.grammar.check(ids.tolist()) == ""
    spans = uti.unpack(ids.tolist())
    assert [span.kind for span in spans] == ["text", "audio", "text"]
    assert uti.decode(spans[2]) == "a red circle"
    assert np.array_equal(spans[1].ids, uti.encode(clip()).ids)
    with pytest.raises(InputError, match="at position 0"):
        uti.unpack([uti.space.size])
    with pytest.raises(InputError, match="is not finished"):
        uti.unpack(ids.tolist()[:-1])
    with pytest.raises(InputError, match="these ids are no audio"):
        uti.decode(TokenSpan("audio", spans[1].ids[::-1].copy()))
    with pytest.raises(InputError, match="is no text"):
        uti.decode(TokenSpan("text", spans[1].ids))
    with pytest.raises(InputError, match="has no image codec"):
        uti.encode(np.zeros((8, 8, 3), np.uint8))


def test_another_codec_or_tokenizer_is_refused_with_both_hashes(folder: Path) -> None:
    uti = load_tokens(folder)
    facts = replace(uti.codecs["audio"].facts, weights="f" * 64)
    space = new_space(uti.space.named("TEXT").size, uti.space.tokenizer, (facts,))
    with pytest.raises(InputError, match=r"ffffffffffff.*ids would mean other things"):
        UTI(space, uti.text_codec, uti.codecs)
    with pytest.raises(InputError, match="no such codec is loaded"):
        UTI(uti.space, uti.text_codec, {})
    with pytest.raises(InputError, match="use the same one"):
        UTI(replace(uti.space, tokenizer="0" * 64), uti.text_codec, uti.codecs)


def test_a_flipped_byte_is_found(folder: Path) -> None:
    for name in ("speech_codec.safetensors", "token_space.json", "tokenizer.json"):
        path = folder / name
        whole = path.read_bytes()
        try:
            path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
            with pytest.raises(InputError, match=f"{name} was changed"):
                load_tokens(folder)
        finally:
            path.write_bytes(whole)
    load_tokens(folder)


def test_the_audit_is_a_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec that hears what came before gives other ids: no space is left, and exit code 1."""
    from lumoomni.codecs.speech_tokens import SpeechTokens

    plain, calls = SpeechTokens._alone, []

    def moody(self: SpeechTokens, mel: Tensor) -> Coded:
        calls.append(1)
        return Coded((plain(self, mel).codes + len(calls) // 3) % self.facts.codebook_size)

    monkeypatch.setattr(SpeechTokens, "_alone", moody)
    model, out = write_model(tmp_path / "model"), tmp_path / "space"
    with pytest.raises(GateFailure, match=r"tokens\.speech_same is .*needed >= 1"):
        build_tokens(model, out)
    assert not out.exists()
    shown = CliRunner().invoke(app, ["tokens", "build", str(model), str(out)])
    assert shown.exit_code == 1 and "gate failed: tokens.speech_same" in shown.stderr
    (tmp_path / "file").write_text("")
    shown = CliRunner().invoke(app, ["tokens", "build", str(model), str(tmp_path / "file")])
    assert shown.exit_code == 2 and "is not empty" in shown.stderr


def test_the_commands_go_there_and_back(folder: Path, tmp_path: Path) -> None:
    run = CliRunner()
    save_wav(tmp_path / "a.wav", clip(1))
    ids, out = tmp_path / "ids.json", tmp_path / "out"
    made = run.invoke(
        app, ["tokens", "encode", str(folder), "hello", str(tmp_path / "a.wav"), "--out", str(ids)]
    )
    assert made.exit_code == 0, made.output
    assert run.invoke(app, ["tokens", "decode", str(folder), str(ids), str(out)]).exit_code == 0
    assert (out / "0.txt").read_text() == "hello"
    assert load_audio(out / "1.wav").seconds == pytest.approx(0.75, abs=0.1)
    shown = run.invoke(app, ["tokens", "show", str(folder), "--json"])
    assert json.loads(shown.output)["abi"] == load_tokens(folder).space.abi
    assert "AUDIO_CB1" in run.invoke(app, ["tokens", "show", str(folder)]).output
    data = json.loads(ids.read_text())
    ids.write_text(json.dumps({**data, "abi": "0" * 64}))
    refused = run.invoke(app, ["tokens", "decode", str(folder), str(ids), str(out)])
    assert refused.exit_code == 2 and "was made in token space 000000000000" in refused.output
    ids.write_text("[1, 2]")
    assert run.invoke(app, ["tokens", "decode", str(folder), str(ids), str(out)]).exit_code == 2
    again = run.invoke(app, ["tokens", "build", str(folder), str(folder)])
    assert again.exit_code == 2 and "is not empty" in again.output
