"""`unify`, tiny: one Thinker from both stages, held to both gates, that chats and draws."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from lumoomni.artifacts import open_artifact
from lumoomni.cli import app
from lumoomni.data.conversation import Turn
from lumoomni.errors import InputError
from lumoomni.gates import Check, Report, exact
from lumoomni.infer.assemble import find_artifact, gather
from lumoomni.infer.chat import Choice, Lumo
from lumoomni.infer.draw import PICTURE, SOUND, Artist, DrawConfig, find_rows
from lumoomni.infer.reply import AudioPart, ImagePart, TextPart
from lumoomni.infer.row_package import load_rows
from lumoomni.media.audio import Audio, save_wav
from lumoomni.media.image import load_image
from lumoomni.model.lora import LoraSettings
from lumoomni.model.thinker import ThinkerConfig
from lumoomni.pipeline import build
from lumoomni.recipes import RECIPES
from lumoomni.runtime import Progress
from lumoomni.stages import instruct, pretrain_tokens, unify
from lumoomni.stages.align_connector import AlignConnectorConfig
from lumoomni.stages.instruct import InstructConfig
from lumoomni.stages.pretrain_text import PretrainTextConfig
from lumoomni.stages.unify import UnifyConfig
from lumoomni.train.loop import LoopConfig
from lumoomni.train.optim import OptimConfig
from lumoomni.train.turns import ByTurns
from tests.stages.token_build import TOKENS, unified
from tests.tiny import write_model

THINKER = ThinkerConfig(
    vocab_size=320,
    width=32,
    layers=2,
    heads=2,
    kv_heads=1,
    head_width=16,
    ffn_width=48,
    max_positions=512,
)
CONFIG = UnifyConfig(
    omni=InstructConfig(loop=LoopConfig(steps=1, batch_size=1), eval_items=20),
    tokens=replace(TOKENS, start=None, start_until=0.0),
    text=PretrainTextConfig(thinker=THINKER, loop=LoopConfig(steps=1, batch_size=1), eval_items=20),
    aligned=AlignConnectorConfig(
        data="world", loop=LoopConfig(steps=1, batch_size=1), eval_items=20, golden=0
    ),
    loop=LoopConfig(steps=3, batch_size=3, accumulate=2),
    optim=OptimConfig(lr=1e-3, matrix_lr=0.01, warmup=2),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unified") / "build"
    build(unified(CONFIG), out, progress=Progress(silent=True), device="cpu")
    return out


@pytest.mark.slow
def test_all_that_both_stages_train_is_trained_and_nothing_else(built: Path) -> None:
    for stage, parts in (
        ("pretrain_tokens", ("thinker", "rows")),
        ("instruct", ("image_connector", "audio_connector")),
    ):
        for part in parts:
            old, new = (load_file(built / x / f"{part}.safetensors") for x in (stage, "unify"))
            moved = {name for name in old if not torch.equal(old[name], new[name])}
            assert moved and "token_table.weight" not in moved, part


@pytest.mark.slow
def test_every_gate_of_both_is_asked_and_stands_beside_its_past(built: Path) -> None:
    metrics = open_artifact(built / "unify").report.metrics
    asked = {one.metric for one in unify.checks(CONFIG)}
    assert asked <= metrics.keys()
    both = {*instruct.checks(CONFIG.omni), *pretrain_tokens.checks(CONFIG.tokens)}
    first = {
        *("text.loss", "text.cache_difference", "text.exact_match"),
        *(f"ablation.{x}" for x in ("shuffled_over_correct", "zero_over_shuffled")),
        "ablation.noise_over_shuffled",
    }
    assert asked == {one.metric for one in both} | first
    past = open_artifact(built / "pretrain_tokens").report.metrics
    # Of both, only `unify` has a recogniser here.
    assert {"said.wer", "said.wer_swapped"} <= metrics.keys() and "said.wer" not in past
    for name in ("draw.whole.seen", "tokens.i2t.loss", "made.pressure"):
        assert metrics[f"before.{name}"] == past[name]


@pytest.mark.slow
def test_one_model_chats_and_draws(built: Path) -> None:
    assert find_artifact(built).kind == "unify" == find_rows(built).kind
    sources = gather(built).sources
    own = ("thinker", "rows", "image_connector", "audio_connector")
    assert {sources[name] for name in own} == {"unify"}
    assert sources["speech_codec"] == "train_codecs" and sources["talker"] == "train_talker"
    drawn = Artist.open(built).draw(["a red circle"], 1, DrawConfig(temperature=1.0))
    assert drawn[0].made.shape == (32, 32, 3)  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_reply_holds_words_a_picture_and_speech(built: Path, tmp_path: Path) -> None:
    lumo, choice = Lumo.load(built), Choice(max_new_tokens=4, seed=5)
    reply = lumo.chat("what is it?", draw="a red circle", speak=True, choice=choice)
    kinds = [type(one) for one in reply.parts]
    assert kinds in ([TextPart, AudioPart, ImagePart], [TextPart, ImagePart])  # it may say nothing
    alone = Artist.open(built).draw(["a red circle"], 1, replace(PICTURE, seed=5))[0].made
    assert np.array_equal(reply.images[0], alone)  # type: ignore[arg-type]
    # A later turn sees it: the pixels of the history are those that were drawn.
    more = lumo.layout.encode((*reply.history, Turn(role="user", text="why?")), open_answer=True)
    assert len(more.pixels) == 1
    assert torch.equal(more.pixels[0], lumo.layout.prepare([alone])[0])  # type: ignore[list-item]
    again = lumo.chat("why?", history=reply.history, choice=choice)
    assert again.images == () and len(again.history) == 4
    with pytest.raises(InputError, match="holds no rows"):
        Lumo.load(write_model(tmp_path / "plain")).chat("draw", draw="a red circle")


@pytest.mark.slow
def test_a_reply_holds_a_sound_and_the_next_turn_hears_it(built: Path) -> None:
    lumo, choice = Lumo.load(built), Choice(max_new_tokens=2, seed=5)
    reply = lumo.chat("what is it?", sound="a beep", choice=choice)
    assert reply.speech is None and len(reply.sounds) == 1 and reply.audio is reply.sounds[0]
    alone = Artist.open(built).sound(["a beep"], 1, replace(SOUND, seed=5))[0].made
    assert isinstance(alone, Audio) and np.array_equal(reply.sounds[0].samples, alone.samples)
    assert len(reply.history[-1].sounds) == 1
    assert len(lumo.chat("why?", history=reply.history, choice=choice).history) == 4


@pytest.mark.slow
def test_media_are_described_by_their_tokens(built: Path, tmp_path: Path) -> None:
    """What `chat` says with as_tokens is what the token stages read, and it takes no question."""
    lumo, greedy = Lumo.load(built), DrawConfig(temperature=0.0)
    picture = np.full((32, 32, 3), 200, np.uint8)
    rate = lumo.artist.uti.space.codec("audio").sample_rate
    tone = Audio(np.sin(np.arange(rate) / 20).astype(np.float32) * 0.3, rate)
    for given, media in (({"image": picture}, picture), ({"audio": tone}, tone)):
        read = str(lumo.artist.read([media], greedy)[0].made).strip()
        reply = lumo.chat(as_tokens=True, **given)
        assert reply.text == read and len(reply.history) == 2
    for wrong in ({}, {"image": picture, "audio": tone}, {"image": [picture, picture]}):
        with pytest.raises(InputError, match="one picture or one sound"):
            lumo.chat(as_tokens=True, **wrong)
    with pytest.raises(InputError, match="one picture or one sound"):
        lumo.chat("what?", image=picture, as_tokens=True)
    save_wav(tmp_path / "a.wav", tone)
    said = CliRunner().invoke(
        app, ["chat", str(built), "--audio-in", str(tmp_path / "a.wav"), "--as-tokens", "--json"]
    )
    assert said.exit_code == 0 and json.loads(said.stdout)["text"] == reply.text
    said = CliRunner().invoke(
        app, ["chat", str(built), "--audio-in", str(tmp_path / "a.wav"), "--as-tokens"]
    )
    assert said.exit_code == 0 and said.stdout.strip() == reply.text
    lame = CliRunner().invoke(app, ["chat", str(built), "--as-tokens"])
    assert lame.exit_code == 2 and "need something to answer" in lame.stderr


@pytest.mark.slow
def test_chat_writes_the_picture_where_it_is_told(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn.png"
    words = ["chat", str(built), "--text", "hi", "--max-new-tokens", "2", "--json"]
    found = CliRunner().invoke(app, [*words, "--draw", "a red circle", "--image-out", str(out)])
    assert found.exit_code == 0 and json.loads(found.stdout)["image"] == str(out)
    assert load_image(out).shape == (32, 32, 3)
    lame = CliRunner().invoke(app, [*words, "--draw", "a red circle"])
    assert lame.exit_code == 2 and "--image-out" in lame.output


@pytest.mark.slow
def test_a_routed_model_is_joined_and_text_stays_to_the_bit(tmp_path: Path) -> None:
    tokens = replace(CONFIG.tokens, routed=True, thinker_rate=0.0)
    config = replace(CONFIG, train=False, tokens=tokens)
    out = tmp_path / "build"
    build(unified(config), out, progress=Progress(silent=True), device="cpu")
    stages = ("instruct", "pretrain_tokens", "unify")
    thinkers = [load_file(out / name / "thinker.safetensors") for name in stages]
    for one in thinkers[1:]:
        assert all(torch.equal(one[name], thinkers[0][name]) for name in one)
    maker = load_file(out / "pretrain_tokens" / "maker.safetensors")
    moved = {name for name in maker if not torch.equal(maker[name], thinkers[0][name])}
    assert moved == {name for name in maker if name.startswith("blocks.") and "norm" not in name}
    joined = load_file(out / "unify" / "maker.safetensors")
    assert all(torch.equal(maker[name], joined[name]) for name in maker)
    for stage in stages[1:]:
        assert open_artifact(out / stage).report.metrics["text.loss_ratio"].value == 1
    assert gather(out).sources["maker"] == "unify"
    artist = Artist.open(out)
    assert artist.model.maker is not None
    how = DrawConfig(temperature=1.0, guidance=2.0, tries=3, seed=1)
    assert artist.draw(["a red circle"], 1, how)[0].made.shape == (32, 32, 3)  # type: ignore[union-attr]
    reply = Lumo.load(out).chat("what is it?", draw="a red circle", choice=Choice(max_new_tokens=2))
    assert len(reply.images) == 1
    for words in (
        ["export", str(out), str(tmp_path / "hf"), "--format", "hf"],
        ["rows", "pack", str(out), str(tmp_path / "rows")],
        # The Thinker was left to the bit, so what was learned beside it fits who had it before.
        ["rows", "apply", str(out / "instruct"), str(tmp_path / "rows")],
    ):
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0, found.output


@pytest.mark.slow
def test_beside_a_maker_the_thinker_can_learn_too_by_turns(tmp_path: Path) -> None:
    config = replace(CONFIG, tokens=replace(CONFIG.tokens, routed=True))
    out = tmp_path / "build"
    build(unified(config), out, progress=Progress(silent=True), device="cpu")
    for before, after in (("instruct", "pretrain_tokens"), ("pretrain_tokens", "unify")):
        for part in ("thinker", "rows", "maker"):
            there = "train_rows" if (before, part) == ("instruct", "rows") else before
            there = "instruct" if not (out / there / f"{part}.safetensors").is_file() else there
            source = "thinker" if part == "maker" and there == "instruct" else part
            old = load_file(out / there / f"{source}.safetensors")
            new = load_file(out / after / f"{part}.safetensors")
            assert any(not torch.equal(old[name], new[name]) for name in new), (after, part)
        assert load_rows(out / after / "package").facts.has_maker
    thinker, maker = (load_file(out / "unify" / f"{x}.safetensors") for x in ("thinker", "maker"))
    own = {name for name in maker if not torch.equal(maker[name], thinker[name])}
    assert own == {name for name in maker if name.startswith("blocks.") and "norm" not in name}


def test_settings_that_do_not_go_together_are_told() -> None:
    with pytest.raises(InputError, match="must be trained by turns"):
        replace(CONFIG, train=False)
    with pytest.raises(InputError, match="nothing but rows would learn"):
        replace(CONFIG.tokens, thinker_rate=0.0)
    with pytest.raises(InputError, match="leave one of both out"):
        replace(CONFIG.tokens, routed=True, lora=LoraSettings(rank=2, alpha=4.0))


def test_of_two_bounds_on_the_text_the_stricter_one_counts() -> None:
    found = [one for one in unify.checks(CONFIG) if one.metric == "text.loss_ratio"]
    assert [one.threshold for one in found] == [1.01]
    loose = replace(CONFIG, tokens=replace(CONFIG.tokens, max_text_loss=1.5))
    found = [one for one in unify.checks(loose) if one.metric == "text.loss_ratio"]
    assert [one.threshold for one in found] == [1.10]


def test_stricter_is_meant_in_the_checks_own_direction() -> None:
    for op, loose, strict in (("<=", 2.0, 1.0), ("<", 2.0, 1.0), (">=", 1.0, 2.0), (">", 1.0, 2.0)):
        one, other = (Check(metric="m", op=op, threshold=x, why="") for x in (loose, strict))  # type: ignore[arg-type]
        assert unify._stricter(other, one) and not unify._stricter(one, other)
        assert not unify._stricter(one, one)


def test_beside_a_number_stands_what_it_was_first() -> None:
    class Told:
        def __init__(self, value: float) -> None:
            self.report = Report(metrics={"look.right": exact(value), "text.loss": exact(value)})

    parents: Any = {name: Told(i) for i, name in enumerate(unify.BEFORE)}
    now = {"look.right": exact(9.0), "text.loss": exact(9.0)}
    assert unify.beside(now, parents) == {"before.look.right": exact(0.0)}


def test_an_odd_update_is_refused() -> None:
    with pytest.raises(InputError, match="accumulate is 3"):
        replace(CONFIG, loop=LoopConfig(steps=3, batch_size=3, accumulate=3))


def test_nano_ends_with_it() -> None:
    recipe = RECIPES["nano"]()
    stage = recipe.stage("unify")
    assert {"instruct", "pretrain_tokens", "train_talker"} <= set(stage.parents)
    assert stage.config.omni == replace(recipe.stage("instruct").config)
    assert stage.config.text == recipe.stage("pretrain_text").config
    assert stage.config.aligned == recipe.stage("align_connector").config


class Half:
    """A task of numbers: its loss is their sum times a weight it learns."""

    def __init__(self, factor: float, shared: torch.nn.Module) -> None:
        self.modules = {"shared": shared}
        self._factor, self._shared = factor, shared

    def batch(self, index: int) -> float:
        return self._factor * index

    def weight(self, batch: float) -> float:
        return 2.0

    def loss(self, batch: float):  # type: ignore[no-untyped-def]
        from lumoomni.train.loop import StepLoss

        return StepLoss(self._shared.weight.sum() * batch, {"sum": batch})  # type: ignore[operator,union-attr]


def test_turns_are_taken_and_weighed() -> None:
    shared = torch.nn.Linear(1, 1, bias=False)
    task = ByTurns(Half(1.0, shared), Half(10.0, shared), weight=3.0)
    batches = [task.batch(i) for i in range(6)]
    assert [(one.second, one.batch) for one in batches] == [
        *((False, 0.0), (True, 0.0), (False, 1.0), (True, 10.0), (False, 2.0), (True, 20.0))
    ]
    assert [task.weight(one) for one in batches[:2]] == [6.0, 2.0]
    first, second = task.loss(batches[2]), task.loss(batches[3])
    assert first.parts == {"first.sum": 1.0} and second.parts == {"second.sum": 10.0}
    assert torch.allclose(first.total * 10, second.total * 3)
    with pytest.raises(ValueError, match="not the same one"):
        ByTurns(Half(1.0, shared), Half(1.0, torch.nn.Linear(1, 1)))
