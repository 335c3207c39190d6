"""The stage that lays ids side by side: its artifact opens as a space, the audit is its gate."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lumoomni.artifacts import Artifact, open_artifact
from lumoomni.audits.tokens import TokenAuditConfig
from lumoomni.errors import GateFailure, InputError
from lumoomni.gates import Check, Report, exact
from lumoomni.infer.assemble import ModelSettings, find_artifact, save_part, save_settings
from lumoomni.pipeline import Recipe, Stage, StageContext, build
from lumoomni.runtime import Progress, atomic_write_json
from lumoomni.stages import build_token_space
from lumoomni.stages.build_token_space import BuildTokenSpaceConfig
from lumoomni.uti.interface import UTI
from tests.audits.token_stand_ins import TEXT, fitted_codec, inputs
from tests.tiny import MEL, modules

pytestmark = pytest.mark.slow
QUIET = Progress(silent=True)
SMALL = TokenAuditConfig(sentences=2)
STAGE = "build_token_space"


@dataclass(frozen=True)
class Nothing:
    """The config of a stage that only copies."""


def text(context: StageContext) -> Report:
    save_part(context.out, "thinker", modules(TEXT)["thinker"])
    TEXT.save(context.out / "tokenizer.json")
    save_settings(context.out, ModelSettings(mel=MEL))
    return Report(metrics={"ran": exact(1.0)})


def codecs(context: StageContext) -> Report:
    save_part(context.out, "speech_codec", fitted_codec())
    return Report(metrics={"ran": exact(1.0)})


def recipe(**changes: Any) -> Recipe:
    """Two stages that copy, and the one that is tested."""

    def ran(config: object) -> tuple[Check, ...]:
        return (Check(metric="ran", op="==", threshold=1.0, why="it ran"),)

    config = replace(BuildTokenSpaceConfig(pictures=False, audit=SMALL), **changes)
    first = {"pretrain_text": text, "train_codecs": codecs}
    return Recipe(
        name="toy",
        stages=(
            *(
                Stage(name=name, config=Nothing(), parents=(), run=run, checks=ran)
                for name, run in first.items()
            ),
            Stage(
                name=STAGE,
                config=config,
                parents=("pretrain_text", "train_codecs"),
                run=build_token_space.run,
                checks=build_token_space.checks,
            ),
        ),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    out = tmp_path_factory.mktemp("build") / "first"
    return out, build(recipe(), out, progress=QUIET)[STAGE]


def test_the_artifact_is_a_space_and_no_part_of_a_model(built: tuple[Path, Artifact]) -> None:
    out, artifact = built
    assert artifact.passed and artifact.manifest["parents"].keys() == {
        "pretrain_text",
        "train_codecs",
    }
    uti = UTI.load(out / STAGE)
    sound = inputs(sounds=1).sounds[0]
    assert len(uti.decode(uti.encode(sound)).samples) == len(sound.samples)  # type: ignore[union-attr]
    assert uti.space.named("TEXT").size == modules(TEXT)["thinker"].config.vocab_size
    names = set(artifact.manifest["files"])
    assert artifact.manifest["abi"] == uti.space.abi
    assert {"report.json", "recon.wav", "token_space.json", "token_space.sha256"} <= names
    assert find_artifact(out).kind == "train_codecs"


def test_the_same_build_again_is_the_same_artifact(
    built: tuple[Path, Artifact], tmp_path: Path
) -> None:
    out, artifact = built
    for name in ("pretrain_text", "train_codecs"):
        shutil.copytree(out / name, tmp_path / "again" / name)
    again = build(recipe(), tmp_path / "again", progress=QUIET)[STAGE]
    assert again.hash == artifact.hash
    # That report is of this same build: no baseline for it, but one for other settings.
    report = str(out / STAGE / "report.json")
    with pytest.raises(InputError, match="own report"):
        build(recipe(baseline=report), out, progress=QUIET)
    other = recipe(baseline=report, audit=replace(SMALL, min_own=0.8))
    held = build(other, tmp_path / "again", progress=QUIET)[STAGE]
    assert held.report.metrics["metrics_v2_pass"].value == 1.0
    assert "baseline_report.json" in held.manifest["files"]
    assert held.report.notes["baseline"].startswith("the baseline is another run of this same")


def test_what_falls_short_stops_the_build(built: tuple[Path, Artifact], tmp_path: Path) -> None:
    out = tmp_path / "build"
    shutil.copytree(built[0], out)
    with pytest.raises(GateFailure, match=r"audio\.codebooks is 2 .* needed == 3"):
        build(recipe(codebooks=3), out, progress=QUIET)
    assert not open_artifact(out / STAGE).passed
    with pytest.raises(InputError, match="did not pass its audit"):
        UTI.load(out / STAGE)
    with pytest.raises(GateFailure, match=r"audio\.encoded: is nan"):
        build(recipe(audit=replace(SMALL, sentences=0)), out, progress=QUIET)
    with pytest.raises(InputError, match=r"made a image_codec\.json"):
        build(recipe(pictures=True), out, progress=QUIET)
    atomic_write_json(tmp_path / "none.json", {})
    with pytest.raises(InputError, match="no report of a token audit"):
        build(recipe(baseline=str(tmp_path / "none.json")), out, progress=QUIET)
