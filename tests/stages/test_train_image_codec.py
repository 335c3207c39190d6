"""The picture codec's stage at toy size: it learns, it is judged, and what is wrong fails."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lumoomni.artifacts import open_artifact
from lumoomni.codecs.facts import Coded
from lumoomni.codecs.image_tokens import ImageTokens
from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.data.world.scene import draw
from lumoomni.data.world.sketch import sketch
from lumoomni.errors import GateFailure
from lumoomni.gates import Report, Verdict, judge
from lumoomni.infer.assemble import gather, load_part
from lumoomni.media.image import load_image, normalise
from lumoomni.pipeline import Recipe, Stage, build
from lumoomni.recipes import RECIPES
from lumoomni.runtime import Progress
from lumoomni.stages.train_image_codec import (
    TrainImageCodecConfig,
    checks,
    code_use,
    grid,
    held_out,
    judged_by,
    measure,
    near_edges,
    rebuild,
    run,
)
from lumoomni.train.inks import InkConfig
from lumoomni.train.loop import LoopConfig
from lumoomni.train.optim import OptimConfig
from tests.tiny import write_model

CONFIG = TrainImageCodecConfig(
    codec=ImageCodecConfig(
        image_size=64, fine_width=24, width=48, code_width=8, codebook_size=128, depth=1
    ),
    loop=LoopConfig(steps=70, batch_size=16),
    optim=OptimConfig(lr=4e-3, matrix_lr=0.03, warmup=10),
    eval_items=30,
    min_gain=3.0,
    min_code_use=0.3,
    min_original=0.995,
    min_rebuilt=0.3,
    min_sketched=0.0,
)
"""What so small a codec reaches in seconds; an untrained one is far below each number."""


def toy(config: TrainImageCodecConfig = CONFIG) -> Recipe:
    stage = Stage(name="train_image_codec", config=config, parents=(), run=run, checks=checks)
    return Recipe(name="toy", stages=(stage,))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that passed its gate."""
    out = tmp_path_factory.mktemp("image")
    build(toy(), out, progress=Progress(silent=True), device="cpu")
    return out


def codec_of(out: Path) -> ImageCodec:
    codec = load_part(open_artifact(out / "train_image_codec"), "image_codec")
    assert isinstance(codec, ImageCodec)
    return codec


def judged(codec: ImageCodec) -> tuple[Report, Verdict]:
    tokens = ImageTokens(codec.eval(), "0" * 64)
    ways = (judged_by(tokens, CONFIG, 0, way) for way in (draw, sketch))
    report = measure(CONFIG, *ways)
    return report, judge(report, checks(CONFIG))


@pytest.mark.slow
def test_it_learns_and_leaves_a_part_and_a_picture(trained: Path) -> None:
    artifact = open_artifact(trained / "train_image_codec")
    assert artifact.passed
    assert artifact.report.metrics["image.read_whole"].n == 30
    again, verdict = judged(codec_of(trained))
    assert verdict.passed and again.metrics == artifact.report.metrics
    shown = load_image(artifact.path / "rebuilt.png")
    assert shown.shape == (8 * 68, 10 * 68, 3)
    assert np.array_equal(shown[2:66, 2:66], draw(held_out("seen", CONFIG, 0)[0]))


@pytest.mark.slow
def test_a_shuffled_codebook_fails(trained: Path) -> None:
    codec = codec_of(trained)
    tokens = ImageTokens(codec, "0" * 64)
    pictures, sketches = (judged_by(tokens, CONFIG, 0, way) for way in (draw, sketch))
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    codec.quantiser.codebooks.copy_(codec.quantiser.codebooks[:, order])
    other = [
        {
            split: [replace(one, rebuilt=tokens.decode(Coded(one.codes))) for one in items]
            for split, items in group.items()
        }
        for group in (pictures, sketches)
    ]
    text = " ".join(judge(measure(CONFIG, *other), checks(CONFIG)).failures())
    assert "image.gain is" in text and "image.read_rebuilt is" in text
    assert "read_original" not in text


@pytest.mark.slow
def test_an_untrained_codec_fails() -> None:
    torch.manual_seed(0)
    report, verdict = judged(ImageCodec(CONFIG.codec))
    assert not verdict.passed
    assert report.metrics["image.gain"].value < 1 and report.metrics["image.code_use"].value < 0.05
    assert report.metrics["image.read_rebuilt"].value < 0.2


def test_a_judge_that_misreads_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from lumoomni.data.world import reading

    class Mirror:
        """A codec that gives every picture back, but for the last bit of each level."""

        facts = ImageTokens(ImageCodec(CONFIG.codec).eval(), "0" * 64).facts

        def encode_batch(self, media):  # type: ignore[no-untyped-def]
            return [self.encode(one) for one in media]

        def encode(self, media):  # type: ignore[no-untyped-def]
            return Coded(np.arange(64)[:, None], {"picture": media})

        def decode(self, coded):  # type: ignore[no-untyped-def]
            return coded.side["picture"] ^ 1

    small = replace(CONFIG, eval_items=12)
    pairs = [judged_by(Mirror(), small, 0, way) for way in (draw, sketch)]
    assert judge(measure(small, *pairs), checks(small)).passed
    monkeypatch.setitem(reading.AREAS, "star", 2.0)
    monkeypatch.setitem(reading.RGB, "red", (214, 134, 40))
    text = " ".join(judge(measure(small, *pairs), checks(small)).failures())
    assert "image.read_original is" in text and "cannot judge a codec" in text


def test_a_codec_that_loses_one_thing_of_sketches_fails() -> None:
    """The others survive, and pictures too: only drawings would show it, an hour later."""

    class Forgets:
        """A codec that gives every picture back, but for what is white on a plain sheet."""

        facts = ImageTokens(ImageCodec(CONFIG.codec).eval(), "0" * 64).facts

        def encode_batch(self, media):  # type: ignore[no-untyped-def]
            return [Coded(np.arange(64)[:, None], {"picture": one}) for one in media]

        def decode(self, coded):  # type: ignore[no-untyped-def]
            picture = coded.side["picture"]
            plain = (picture[0, 0] == 153).all()
            white = picture.min(-1, keepdims=True) > 235
            return np.where(white & plain, 153, picture ^ 1).astype(np.uint8)

    small = replace(CONFIG, eval_items=60, min_code_use=0.0, min_sketched=0.95)
    pairs = [judged_by(Forgets(), small, 0, way) for way in (draw, sketch)]
    verdict = judge(measure(small, *pairs), checks(small))
    assert all("image.sketched" in line for line in verdict.failures()) and not verdict.passed


def test_use_of_levels_is_that_of_the_laziest_component() -> None:
    config = ImageCodecConfig(code_width=2, levels=(4, 5), codebook_size=20)
    assert code_use(np.arange(20), config) == 1
    assert code_use(np.array([0, 5, 10, 15]), config) == 0.2
    assert code_use(np.array([0, 1, 2, 3, 4]), config) == 0.25
    assert code_use(np.array([0, 0, 7]), ImageCodecConfig(codebook_size=8)) == 0.25


def test_faint_edges_weigh_more_and_grain_does_not() -> None:
    def weights(ground: int, ink: tuple[int, int, int]) -> torch.Tensor:
        picture = np.full((64, 64, 3), ground, np.uint8)
        picture[:, 32:] = ink
        return near_edges(normalise([picture]))[0, 0]

    vivid, faint = weights(150, (214, 34, 40)), weights(186, (250, 250, 250))
    for found in (vivid, faint):
        assert found.shape == (64, 64) and float(found[:, 30:35].min()) > 0
        assert float(found[:, :29].max()) == 0 and float(found[:, 36:].max()) == 0
    assert float(faint[:, 30:35].min()) > 2 * float(vivid.max())
    grain = np.random.default_rng(0).integers(146, 155, (64, 64, 3)).astype(np.uint8)
    assert float(near_edges(normalise([grain])).max()) < 0.1


def test_every_pair_of_rows_shows_before_and_after() -> None:
    one = rebuild_of(7)
    rows = grid([one] * 13)
    assert rows.shape == (4 * 68, 10 * 68, 3)
    assert np.array_equal(rows[2:66, 2:66], one.original)
    assert np.array_equal(rows[70:134, 2:66], one.rebuilt)
    assert (rows[136:, 3 * 68 :] == 255).all()


def rebuild_of(seed: int):  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    return rebuild(
        ImageTokens(ImageCodec(CONFIG.codec).eval(), ""), held_out("seen", CONFIG, 0)[:1]
    )[0]


@pytest.mark.slow
def test_digits_of_colour_stay_as_they_were_learned(tmp_path: Path) -> None:
    shape = replace(
        CONFIG.codec, code_width=4, levels=(5, 5, 4, 4), codebook_size=400, ink_digits=2
    )
    found = []
    for steps in (2, 4):  # the same colours first, and then not as long of the rest
        config = replace(
            CONFIG,
            codec=shape,
            inks=InkConfig(tries=2, updates=30, pictures=24),
            loop=LoopConfig(steps=steps, batch_size=4, accumulate=2),
            eval_items=4,
        )
        out = tmp_path / str(steps)
        with pytest.raises(GateFailure):
            build(toy(config), out, progress=Progress(silent=True), device="cpu")
        found.append(codec_of(out).state_dict())
    torch.manual_seed(0)
    fresh = ImageCodec(shape).state_dict()
    for name, value in found[1].items():
        ink = ".ink." in name
        assert torch.equal(value, found[0][name]) == ink, name
        assert not (ink and torch.equal(value, fresh[name])), name


@pytest.mark.slow
def test_a_model_takes_it_from_beside_itself(trained: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "build")
    (model / "train_image_codec").symlink_to(trained / "train_image_codec")
    recipe = json.loads((model / "recipe.json").read_text())
    recipe["stages"]["train_image_codec"] = {}
    (model / "recipe.json").write_text(json.dumps(recipe))
    parts = gather(model)
    assert parts.artifact.kind == "instruct" and parts.sources["thinker"] == "instruct"
    assert parts.sources["image_codec"] == "train_image_codec"
    state = codec_of(trained).state_dict()
    for name, value in parts.need("image_codec").state_dict().items():
        assert torch.equal(state[name], value), name


def test_nano_trains_it_after_all_that_the_demo_builds() -> None:
    names = RECIPES["nano"]().names()
    assert names.index("train_image_codec") > names.index("instruct")
    stage = RECIPES["nano"]().stage("train_image_codec")
    assert stage.parents == () and stage.config.codec.tokens <= 64
    assert {check.threshold for check in stage.checks(stage.config)} == {
        *(0.5, 10.0, 0.995, 0.98, 0.95)
    }
