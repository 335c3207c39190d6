"""The stages that learn tokens, tiny: what they leave, that they resume, and their gates."""

import copy
import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lumoomni.artifacts import open_artifact
from lumoomni.data.shard_set import ShardSet
from lumoomni.data.world.language import caption, shapeless, uncoloured
from lumoomni.data.world.scene import make_scene
from lumoomni.data.world.split import COLOURS, SHAPES
from lumoomni.data.world_shards import (
    ASK_COLOURS,
    ASK_SHAPES,
    FreshConfig,
    _item,
    fresh_shards,
    held_out,
    said_by,
    told,
)
from lumoomni.errors import InputError
from lumoomni.gates import Report, exact, judge, wilson
from lumoomni.infer.assemble import base_hash, find_artifact, gather, load_part
from lumoomni.infer.draw import Artist, DrawConfig, find_rows
from lumoomni.infer.row_package import load_rows
from lumoomni.model.lora import LoraSettings
from lumoomni.model.rows import Rows
from lumoomni.pipeline import build
from lumoomni.recipes import RECIPES
from lumoomni.runtime import Interrupted, Progress
from lumoomni.stages import pretrain_tokens, train_rows
from lumoomni.stages.token_training import share_digits
from lumoomni.train.tokens import TokenTask
from lumoomni.uti.interface import UTI
from tests import tiny
from tests.stages.token_build import ROWS, TOKENS, recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokens") / "build"
    build(recipe(), out, progress=Progress(silent=True), device="cpu")
    return out


def test_rows_alone_are_trained_and_named_by_their_base(built: Path) -> None:
    artifact, base = open_artifact(built / "train_rows"), open_artifact(built / "instruct")
    metrics = artifact.report.metrics
    assert metrics["base.changed"].value == 0 and metrics["text.same_bits"].value == 1
    space = open_artifact(built / "build_token_space")
    package = load_rows(artifact.path / "package", base=base_hash(base))
    rows = load_part(artifact, "rows")
    assert torch.equal(package.rows.row_table, rows.row_table)  # type: ignore[arg-type]
    assert package.facts.abi == json.loads(space.file("token_space.json").read_text())["abi"]
    assert artifact.manifest["abi"] == package.facts.abi
    # A chat goes on with the rows' line; it must not take the Thinker that only speaks tokens.
    assert find_artifact(built).kind == "train_rows"
    assert gather(built).sources["thinker"] == "instruct"
    # The token space holds copies of codecs, which need not be those that the Talker speaks with.
    assert "speech_codec" not in gather(built).sources


def test_tokens_are_learned_by_a_thinker_of_its_own_which_draws(built: Path) -> None:
    artifact, before = open_artifact(built / "pretrain_tokens"), open_artifact(built / "instruct")
    old, new = (load_file(one.file("thinker.safetensors")) for one in (before, artifact))
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert "token_table.weight" not in moved and len(moved) > 5
    assert load_rows(artifact.path / "package", base=base_hash(artifact)).facts.row_start == 320
    assert (artifact.path / "drawn_seen.png").is_file()
    examples = [json.loads(x) for x in artifact.file("examples.jsonl").read_text().splitlines()]
    assert {one["split"] for one in examples} == {"seen", "unseen"}
    metrics = artifact.report.metrics
    assert metrics["made.decodable"].value == 1
    assert 0 < metrics["made.pressure"].value <= 1
    wanted = {"draw.whole.seen", "sound.codec_whole.unseen", "read.i2t.seen.attributes"}
    assert wanted <= metrics.keys()
    assert find_rows(built).kind == "pretrain_tokens"
    artist = Artist.open(built)
    how = DrawConfig(temperature=1.0, guidance=2.0, seed=3)
    drawn = artist.draw(["a red circle", ""], 2, how)
    assert [one.made.shape for one in drawn] == [(32, 32, 3)] * 4  # type: ignore[union-attr]
    again = artist.draw(["a red circle", ""], 2, how)
    assert all((a.ids == b.ids).all() for a, b in zip(drawn, again, strict=True))
    assert (drawn[0].ids != drawn[1].ids).any()


def test_codes_of_colour_and_form_move_by_what_is_learned_of_either(built: Path) -> None:
    before, after = (
        load_part(open_artifact(built / name), "rows").row_table.detach()  # type: ignore[union-attr,operator]
        for name in ("train_rows", "pretrain_tokens")
    )
    space = UTI.load(built / "build_token_space").space
    (book,) = space.books("image")
    place = book.start - space.new_rows.start
    moved = (after - before)[place : place + book.size].view(4, 8, -1)  # 4 colours, 8 forms
    assert moved.abs().max() > 1e-3
    sums = moved[:, :1] + moved[:1] - moved[:1, :1]
    assert torch.allclose(moved, sums, atol=1e-5)


def test_rows_that_learned_for_themselves_do_not_become_sums(built: Path) -> None:
    space = open_artifact(built / "build_token_space")
    context = SimpleNamespace(parents={"build_token_space": space}, name="pretrain_tokens")
    bench = SimpleNamespace(config=TOKENS, uti=UTI.load(space.path))
    rows = load_part(open_artifact(built / "train_rows"), "rows")
    assert isinstance(rows, Rows)
    share_digits(context, bench, copy.deepcopy(rows))  # type: ignore[arg-type]
    (book,) = bench.uti.space.books("image")
    rows.row_table.data[book.start - bench.uti.space.new_rows.start] += 1.0
    with pytest.raises(InputError, match="no such sum"):
        share_digits(context, bench, rows)  # type: ignore[arg-type]


def test_fresh_tokens_are_none_that_the_manifest_has(built: Path) -> None:
    (folder,) = (built / ".cache").glob("fresh-*")
    fresh = ShardSet.open(folder)
    ids = [fresh.sample("train", i).id for i in range(fresh.len("train"))]
    assert len(ids) == 19 and ids[0] == "fresh:scenes:0000012"
    assert len({tuple(fresh.sample("train", i).text) for i in range(10)}) > 5
    shards = ShardSet.open(built / "tokenize" / "shards")
    assert fresh.abi == shards.abi
    assert len(fresh.shards("train")) == 4
    # Scenes and sounds are read there, sketches and cues made.
    assert fresh.counts["train"].tasks == {"i2t": 6, "t2i": 4, "a2t": 4, "t2a": 5}
    codec = UTI.load(built / "build_token_space").text_codec
    every = [fresh.sample("train", i) for i in range(fresh.len("train"))]
    asked = {codec.decode(one.prompt.tolist()) for one in every if one.task == "i2t"}
    assert {"", ASK_SHAPES} <= asked <= {"", ASK_SHAPES, ASK_COLOURS}
    assert not any(len(one.prompt) for one in every if one.task != "i2t")


def test_fresh_shards_are_the_same_bytes_by_any_number_and_after_a_stop(
    built: Path, tmp_path: Path
) -> None:
    (folder,) = (built / ".cache").glob("fresh-*")
    space, config = built / "build_token_space", replace(TOKENS.fresh, first=12)
    stop = threading.Event()
    held = held_out(ShardSet.open(built / "tokenize" / "shards"))
    asked = {"seed": 0, "progress": Progress(silent=True), "stop": stop, "held": held}
    stop.set()
    for workers in (1, 2):
        with pytest.raises(Interrupted):
            fresh_shards(tmp_path, space, config, workers=workers, **asked)  # type: ignore[arg-type]
    stop.clear()
    (own,) = tmp_path.iterdir()
    assert own.name == folder.name and not (own / "shards.json").exists()
    names = sorted(path.name for path in (folder / "train").iterdir())
    whole = (folder / "train" / names[1]).read_bytes()
    for name, data in (
        (names[0], whole[:-9]),
        (names[1], whole),
    ):  # one broken, one as it should be
        (own / "train" / name).write_bytes(data)
    draft = own / "train" / f".{names[2]}.abcd"  # of a process that was killed while it wrote
    draft.write_bytes(whole[:9])
    before = (own / "train" / names[1]).stat().st_mtime_ns
    made = fresh_shards(tmp_path, space, config, workers=2, **asked)  # type: ignore[arg-type]
    assert made.len("train") == 19 and not draft.exists()
    draft.write_bytes(whole[:9])  # and of one before it, whose index was written all the same
    assert len(fresh_shards(tmp_path, space, config, workers=2, **asked)) == 19  # type: ignore[arg-type]
    assert (own / "train" / names[1]).stat().st_mtime_ns == before
    for path in (folder / "shards.json", *(folder / "train").iterdir()):
        assert path.read_bytes() == (own / path.relative_to(folder)).read_bytes()


def test_what_is_held_out_is_not_made_for_training(built: Path, tmp_path: Path) -> None:
    space, config = built / "build_token_space", replace(TOKENS.fresh, first=12)
    stop, quiet = threading.Event(), Progress(silent=True)
    whole = fresh_shards(tmp_path / "a", space, config, seed=0, progress=quiet, stop=stop)
    rows = [whole.sample("train", i) for i in range(19)]
    names = [said_by(text=one.text, image=one.image, audio=one.audio) for one in rows]
    held = frozenset({names[2], names[17]})
    some = fresh_shards(tmp_path / "b", space, config, seed=0, progress=quiet, stop=stop, held=held)
    left = [one.id for one, name in zip(rows, names, strict=True) if name not in held]
    assert [some.sample("train", i).id for i in range(some.len("train"))] == left
    assert len(left) < 19 and len(left) == some.counts["train"].rows
    shards = ShardSet.open(built / "tokenize" / "shards")
    (folder,) = (built / ".cache").glob("fresh-*")
    made = ShardSet.open(folder)
    every = (made.sample("train", i) for i in range(made.len("train")))
    assert not held_out(shards) & {
        said_by(text=one.text, image=one.image, audio=one.audio) for one in every
    }
    assert len(held_out(shards)) > shards.len("eval") // 2


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({}, "blocks."),
        ({"routed": True, "thinker_rate": 0.0}, "nothing"),
        ({"lora": LoraSettings(rank=2, alpha=4.0)}, "lora_"),
    ],
)
def test_of_the_thinker_learns_what_is_said(change: dict[str, object], part: str) -> None:
    thinker = tiny.modules(tiny.text_codec())["thinker"]
    pretrain_tokens.let_learn(thinker, replace(TOKENS, **change))  # type: ignore[arg-type]
    learns = {name for name, one in thinker.named_parameters() if one.requires_grad}
    every = {name for name, _ in thinker.named_parameters()}
    assert {name for name in every if part in name} <= learns
    assert bool(learns) == (part != "nothing") and not any("table" in name for name in learns)
    assert part != "lora_" or all(part in name for name in learns)


def test_half_told_scenes_name_colours_or_shapes_and_never_both() -> None:
    texts = [told(0, index, 1.0)[1] for index in range(60)]
    coloured, shaped = (
        [any(word in text for word in words) for text in texts] for words in (COLOURS, SHAPES)
    )
    assert all(a != b for a, b in zip(coloured, shaped, strict=True)) and any(coloured)
    assert not all(coloured)
    scenes = [told(0, index, 1.0)[0] for index in range(60)]
    assert all((t.outline is None) != (t.other_tint is None) for s in scenes for t in s.things)
    assert all(told(0, i, 0.0)[1] == caption(make_scene(0, "train", i)) for i in range(9))


def test_of_pictures_that_are_read_shapes_or_colours_can_be_asked_for() -> None:
    plain, asked = (
        [_item(FreshConfig(pictures=40, sketches=20, asked=share), 0, i) for i in range(60)]
        for share in (0.0, 1.0)
    )
    kinds = set()
    for old, new in zip(plain[:40], asked[:40], strict=True):
        assert old.id == new.id and old.prompt == ""
        same = np.array_equal(old.medium, new.medium)  # type: ignore[arg-type]
        shapes = new.prompt == ASK_SHAPES
        assert new.text == (uncoloured if shapes else shapeless)(old.text)
        assert shapes or (new.prompt == ASK_COLOURS and not same)
        kinds.add((shapes, same))
    assert kinds == {(True, True), (True, False), (False, False)}
    assert [(one.text, one.prompt) for one in plain[40:]] == [(o.text, "") for o in asked[40:]]
    for name in ("asked", "half_told"):
        with pytest.raises(InputError, match=rf"{name} is 1\.1; use a share from 0 to 1"):
            FreshConfig(pictures=1, **{name: 1.1})
    with pytest.raises(InputError, match=r"asked is 0\.5, but without sketches .* set sketches"):
        FreshConfig(pictures=1, asked=0.5)


@pytest.mark.parametrize("name", ["train_rows", "pretrain_tokens"])
def test_killed_and_continued_is_the_same_to_the_bit(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stop, real, seen = threading.Event(), TokenTask.loss, []

    def watched(self: TokenTask, batch: object) -> object:
        seen.append(name)
        if len(seen) == ROWS.loop.steps * (name == "pretrain_tokens") + 2:
            stop.set()
        return real(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(TokenTask, "loss", watched)
    out = tmp_path / "build"
    with pytest.raises(Interrupted, match="after step 2"):
        build(recipe(), out, progress=Progress(silent=True), stop=stop, device="cpu")
    build(recipe(), out, progress=Progress(silent=True), device="cpu")
    # Two updates were made before the kill, and none of them twice.
    assert len(seen) == ROWS.loop.steps + TOKENS.loop.steps
    for part in ("rows", "thinker") if name == "pretrain_tokens" else ("rows",):
        one, two = (load_file(x / name / f"{part}.safetensors") for x in (built, out))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_adapters_are_merged_and_leave_the_rest(built: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    lora = replace(TOKENS, lora=LoraSettings(rank=2, alpha=4.0))
    out = tmp_path / "build"
    build(recipe(tokens=lora), out, progress=Progress(silent=True), device="cpu")
    paths = (built / "instruct", out / "pretrain_tokens")
    old, new = (load_file(one / "thinker.safetensors") for one in paths)
    assert old.keys() == new.keys()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved and all(name.startswith("blocks.") for name in moved)


def test_rows_that_decay_are_refused() -> None:
    with pytest.raises(ValueError, match="set it to 0"):
        replace(ROWS, optim=replace(ROWS.optim, weight_decay=0.1))
    with pytest.raises(InputError, match="at least 20"):
        replace(ROWS, eval_items=10)
    with pytest.raises(InputError, match="start_until"):
        replace(TOKENS, start_until=0.0)


def test_a_model_without_rows_says_how_to_make_them(built: Path) -> None:
    with pytest.raises(InputError, match="holds no rows"):
        find_rows(built / "instruct")


def test_nano_learns_tokens_after_tokenizing_and_before_the_sweep() -> None:
    names = RECIPES["nano"]().names()
    order = ["tokenize", "train_rows", "pretrain_tokens", "sweep_connector"]
    assert [name for name in names if name in order] == order


GOOD = {
    "base.changed": exact(0.0),
    "text.same_bits": wilson(5000, 5000),
    "text.rows_share": wilson(1, 500),
    "text.loss_ratio": exact(1.0, n=100),
    "made.decodable": wilson(100, 100),
    "made.pressure": replace(wilson(0, 100), value=0.001),
    "draw.diversity": replace(wilson(40, 48), low=0.5),
    "draw.copied": replace(wilson(0, 100), value=0.05, low=0.01),
    **{f"draw.codec_whole.{split}": wilson(95, 100) for split in ("seen", "unseen")},
    **{f"draw.whole.{split}": wilson(92, 100) for split in ("seen", "unseen")},
    "sound.codec_whole.seen": wilson(95, 100),
    "sound.whole.seen": wilson(93, 100),
    **{
        f"{name}.over_{other}.{split}": replace(wilson(50, 100), low=0.3)
        for name in ("draw", "sound")
        for other in ("swapped", "empty")
        for split in ("seen", "unseen")
    },
    **{f"tokens.{task}.loss": exact(1.0, n=100) for task in ("t2i", "t2a", "i2t", "a2t")},
    **{f"tokens.{task}.unigram": exact(3.0, n=100) for task in ("t2i", "t2a", "i2t", "a2t")},
    **{f"tokens.{task}.wins_over_swapped": wilson(95, 100) for task in ("i2t", "a2t")},
    **{
        f"tokens.{task}.swapped_over_correct": replace(wilson(50, 100), low=0.3)
        for task in ("i2t", "a2t")
    },
    **{
        f"tokens.{task}.change": replace(wilson(1, 100), value=-0.4, high=-0.2)
        for task in ("i2t", "a2t")
    },
    **{
        f"read.{task}.{split}.attributes": wilson(97, 100)
        for task in ("i2t", "a2t")
        for split in ("seen", "unseen")
    },
}


@pytest.mark.parametrize(
    ("fault", "value"),
    [
        ("base.changed", exact(1.0)),
        ("text.same_bits", wilson(4999, 5000)),
        ("text.rows_share", wilson(100, 500)),
        ("text.loss_ratio", exact(1.02, n=100)),
        ("tokens.i2t.loss", exact(3.0, n=100)),
        ("tokens.a2t.swapped_over_correct", replace(wilson(50, 100), low=-0.01)),
        ("tokens.i2t.wins_over_swapped", wilson(50, 100)),
        ("tokens.i2t.change", replace(wilson(1, 100), value=-0.1, high=0.1)),
        ("made.decodable", wilson(99, 100)),
        ("made.pressure", replace(wilson(0, 100), value=0.5)),
        ("draw.whole.seen", wilson(84, 100)),
        ("draw.whole.unseen", wilson(74, 100)),
        ("draw.over_swapped.unseen", replace(wilson(0, 100), low=-0.1)),
        ("draw.over_empty.seen", replace(wilson(0, 100), low=-0.1)),
        ("draw.diversity", replace(wilson(0, 48), low=0.0)),
        ("draw.copied", replace(wilson(20, 100), low=0.1)),
        ("sound.whole.seen", wilson(50, 100)),
        ("sound.codec_whole.seen", wilson(9, 100)),
        ("draw.codec_whole.unseen", wilson(70, 100)),
        ("read.i2t.seen.attributes", wilson(80, 100)),
        ("read.i2t.unseen.attributes", wilson(89, 100)),
        ("read.a2t.unseen.attributes", wilson(89, 100)),
    ],
)
def test_each_fault_fails_a_gate_alone(fault: str, value: object) -> None:
    wanted = {*train_rows.checks(ROWS), *pretrain_tokens.checks(TOKENS)}
    assert judge(Report(metrics=GOOD), wanted).passed
    verdict = judge(Report(metrics={**GOOD, fault: value}), wanted)  # type: ignore[dict-item]
    failed = {one.check.metric for one in verdict.results if not one.passed}
    assert failed == {fault}
