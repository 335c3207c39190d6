"""The stage `tokenize` on small untrained codecs: what it makes, that it is kept, and its gate."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from lumoomni.artifacts import open_artifact
from lumoomni.audits.dataset import DatasetAuditConfig
from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.config import config_hash
from lumoomni.data.manifest import read_manifest
from lumoomni.data.manifest_builders import ManifestConfig
from lumoomni.data.manifest_world import WorldConfig
from lumoomni.data.shard_set import ShardSet
from lumoomni.errors import GateFailure
from lumoomni.gates import Check, Report, exact
from lumoomni.infer.tokens import save_codecs, write_space
from lumoomni.pipeline import Recipe, Stage, StageContext, build
from lumoomni.recipes import RECIPES
from lumoomni.runtime import Progress
from lumoomni.stages import tokenize
from lumoomni.stages.tokenize import DatasetLimits, TokenizeConfig
from tests import tiny

pytestmark = pytest.mark.slow

CONFIG = TokenizeConfig(
    manifest=ManifestConfig(both_ways=True, world=WorldConfig(count=3, held=2, pixels=32)),
    rows_per_shard=10,
    audit=DatasetAuditConfig(context=512, sample=6, decode=2, batch=8),
    # Untrained codecs say little: how near they come is not what is tested here.
    limits=DatasetLimits(
        min_codes=50,
        min_right=0.0,
        max_near=1.0,
        max_repeated=1.0,
        min_psnr=3.0,
        min_ssim=-0.5,
        max_log_mel=20.0,
    ),
)


@dataclass(frozen=True, kw_only=True)
class SpaceConfig:
    seed: int = 0


def space(context: StageContext) -> Report:
    """What `build_token_space` leaves, of tiny codecs."""
    codec = tiny.text_codec()
    codec.save(context.out / "tokenizer.json")
    speech = tiny.modules(codec)["speech_codec"]
    torch.manual_seed(context.config.seed)
    image = ImageCodec(
        ImageCodecConfig(
            image_size=32, fine_width=8, width=16, code_width=8, codebook_size=32, depth=1
        )
    )
    image.quantiser.codebooks.normal_()
    entries = save_codecs(context.out, image, speech, tiny.MEL)
    write_space(context.out, codec, codec.vocab_size, entries, {"at": None})
    return Report(metrics={"m": exact(1.0)})


def recipe(config: TokenizeConfig = CONFIG, seed: int = 0) -> Recipe:
    passed = (Check(metric="m", op=">=", threshold=1.0, why=""),)
    return Recipe(
        name="toy",
        stages=(
            Stage(
                name="build_token_space",
                config=SpaceConfig(seed=seed),
                parents=(),
                run=space,
                checks=lambda config: passed,
            ),
            Stage(
                name="tokenize",
                config=config,
                parents=("build_token_space",),
                run=tokenize.run,
                checks=tokenize.checks,
            ),
        ),
    )


def made(out: Path, config: TokenizeConfig = CONFIG, seed: int = 0) -> None:
    build(recipe(config, seed), out, progress=Progress(silent=True), device="cpu")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenize")
    made(out)
    return out


def test_the_world_becomes_shards_that_pass(built: Path) -> None:
    artifact = open_artifact(built / "tokenize")
    assert artifact.passed
    shards = ShardSet.open(artifact.path / "shards")
    records = {one.id: one for one in read_manifest(artifact.path / "manifest.jsonl")}
    # Scenes, sounds and speech: 9 to train on and 10 held out, both ways.
    assert (len(records), shards.len("train") + shards.len("eval")) == (38, 38)
    assert shards.counts["train"].tasks.keys() == {"a2t", "i2t", "t2a", "t2i"}
    for number in range(shards.len("eval")):
        sample = shards.sample("eval", number)
        assert records[sample.id].split == "eval" and sample.official in ("seen", "unseen", "train")
    # No path of this machine is in it: elsewhere it is the same artifact.
    text = (artifact.path / "manifest.jsonl").read_text()
    assert str(built) not in text + (artifact.path / "shards" / "shards.json").read_text()


def test_a_second_build_keeps_it_and_other_settings_do_not(built: Path) -> None:
    def events() -> list[tuple[str, str]]:
        lines = (built / "events.jsonl").read_text().splitlines()
        return [(one["stage"], one["event"]) for one in map(json.loads, lines)]

    before = len(events())
    made(built)
    assert events()[before:] == [("build_token_space", "kept"), ("tokenize", "kept")]
    identity = open_artifact(built / "tokenize").hash
    made(built, seed=1)
    assert events()[-1] == ("tokenize", "passed")
    assert open_artifact(built / "tokenize").hash != identity


def test_the_number_of_workers_names_nothing(built: Path) -> None:
    many, other = replace(CONFIG, workers=4), replace(CONFIG, rows_per_shard=9)
    assert config_hash(many) == config_hash(CONFIG) != config_hash(other)
    found = open_artifact(built / "tokenize").manifest
    assert found["config_hash"] == config_hash(many) and "workers" not in found["config"]
    assert found["abi"] == ShardSet.open(built / "tokenize" / "shards").abi


def test_what_falls_short_stops_the_build(built: Path) -> None:
    few = replace(CONFIG, limits=replace(CONFIG.limits, min_eval=1000))
    with pytest.raises(GateFailure, match=r"dataset\.rows_eval is 20"):
        made(built, few)


def test_nano_tokenizes_after_its_space_and_before_the_sweep() -> None:
    names = RECIPES["nano"]().names()
    place = names.index("tokenize")
    assert names.index("build_token_space") < place < names.index("sweep_connector")
    assert RECIPES["nano"]().stage("tokenize").parents == ("build_token_space",)
