"""Faults planted into Track A: each must stop the build, or be said, with both numbers or names."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import lumoomni
from lumoomni.audits.placement import check_placement
from lumoomni.data.conversation import Batch, Layout, Turn, collate
from lumoomni.data.packing import collate_packed
from lumoomni.errors import GateFailure, InputError
from lumoomni.gates import Check
from lumoomni.infer.assemble import gather
from lumoomni.model import omni
from lumoomni.model.omni import OmniModel
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.pipeline import Recipe, build
from lumoomni.recipes import resolve
from lumoomni.runtime import Progress
from lumoomni.stages.chat_template import OTHER, mismatch, own_template
from lumoomni.uti.sequence import SequenceBuilder
from tests.stages.toy_folders import captioned, write_world
from tests.tiny import MEL, text_codec

SHAPE = {"latents": 6, "width": 16, "heads": 2, "mlp_ratio": 1}
QUIET = Progress(silent=True)
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
QWEN3 = CHATML + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_world(tmp_path_factory.mktemp("planted"), captioned)


def recipe(world: dict[str, str], *more: str, name: str = "qwen3-0.6b") -> Recipe:
    """Two updates at toy size, with a gate that asks for nothing that is not learned in them."""
    made = resolve(name).override([*(f"{k}={v}" for k, v in world.items())])
    changes = ["adopt_parts.dtype=float32"]
    stages = [one for one in ("align_connector", "instruct") if one in made.names()]
    for stage in stages:
        changes += [f"{stage}.loop.steps=2", f"{stage}.loop.batch_size=4", f"{stage}.eval_items=20"]
        changes += [f"{stage}.loop.accumulate=1", f"{stage}.golden=0"]
    shaped = "align_connector" if "align_connector" in stages else "instruct.fresh"
    changes += [f"{shaped}.{key}={value}" for key, value in SHAPE.items()]
    made = made.override([*changes, *more])
    kept = Check(metric="frozen.changed", op="==", threshold=0.0, why="frozen means frozen")
    adopt, *others = made.stages
    return replace(
        made, stages=(adopt, *(replace(one, checks=lambda config: (kept,)) for one in others))
    )


def late(real: Callable[..., torch.Tensor], by: int) -> Callable[..., torch.Tensor]:
    """`scatter` that writes every feature `by` positions later; all counts still meet."""

    def shifted(x: Any, ids: Any, placeholder: int, features: Any, name: str) -> torch.Tensor:
        return real(x, ids.roll(by, 1), placeholder, features, name)

    return shifted


@pytest.mark.parametrize(
    ("by", "name", "more"),
    [
        (1, "qwen3-0.6b", ()),
        (-1, "qwen3-0.6b", ("align_connector.pack=256", "align_connector.context=200")),
        (1, "qwen3-0.6b-onestage", ()),
    ],
)
def test_features_one_position_off_stop_the_stage(
    world: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by: int,
    name: str,
    more: tuple[str, ...],
) -> None:
    """Training and measuring would agree with each other, so no loss and no ablation tells."""
    made = recipe(world, *more, name=name)
    stage = made.names()[1]
    monkeypatch.setattr(omni, "scatter", late(omni.scatter, by))
    with pytest.raises(GateFailure, match=f"{stage} cannot begin: .* do not hold"):
        build(made, tmp_path / "x", until=stage, progress=QUIET)
    assert not (tmp_path / "x" / stage / "manifest.json").exists()


@pytest.mark.parametrize("extra", [1, -1])
def test_a_placeholder_too_many_or_too_few_is_refused_with_both_numbers(
    world: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    real = SequenceBuilder.media

    def media(self: SequenceBuilder, kind: Any, count: int) -> SequenceBuilder:
        return real(self, kind, count + extra)

    monkeypatch.setattr(SequenceBuilder, "media", media)
    words = f"has {6 + extra} placeholders in {6 + extra} positions .* connector gives 6 features"
    with pytest.raises(GateFailure, match=words):
        build(recipe(world), tmp_path / "x", until="align_connector", progress=QUIET)


class Bare(OmniModel):
    """A Thinker's table and a count of positions: all that placing features asks for."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        shape = {"width": 8, "layers": 1, "heads": 1, "kv_heads": 1, "head_width": 8}
        self.thinker = Thinker(
            ThinkerConfig(vocab_size=text_codec().vocab_size, ffn_width=8, **shape)
        )

    @property
    def image_positions(self) -> int:
        return 3


def batches() -> tuple[Batch, Batch]:
    """Two pictures in one conversation and one in another, padded and packed."""
    layout = Layout(text_codec=text_codec(), template="chatml", mel=MEL, image_positions=3)
    image = torch.zeros(4, 4, 3, dtype=torch.uint8).numpy()
    ask = Turn(role="user", text="what is it?", images=(image, image))
    said = (Turn(role="assistant", text="a circle"),)
    made = [layout.encode((ask, *said)), layout.encode((replace(ask, images=(image,)), *said))]
    return collate(made), collate_packed([made])


def test_markers_alone_say_where_features_stand() -> None:
    model, codec = Bare(), text_codec()
    for batch in batches():
        assert check_placement(model, codec, batch, "s") == 9
        ids = batch.ids.clone()
        first = int((ids[0] == -1).nonzero()[0, 0])
        # The first placeholder and the marker before it change places: counts still meet.
        ids[0, first - 1], ids[0, first] = ids[0, first].clone(), ids[0, first - 1].clone()
        words = "has 2 placeholders in 2 positions .* gives 3"
        with pytest.raises(GateFailure, match=words):
            check_placement(model, codec, replace(batch, ids=ids), "s")
        outside = batch.ids.clone()
        outside[0, 0] = -1
        with pytest.raises(GateFailure, match=r"row 0 holds .* placeholders, but . pictures"):
            check_placement(model, codec, replace(batch, ids=outside), "s")
    spelled = torch.full_like(batches()[0].ids, codec.special("<|vision_start|>"))
    assert check_placement(model, codec, replace(batches()[0], ids=spelled), "s") == 0


def test_what_was_trained_in_one_template_is_served_in_it(
    world: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "m"
    made = recipe(world, "align_connector.template=plain", "instruct.template=qwen3")
    build(made, out, until="instruct", progress=QUIET)
    settings = json.loads((out / "adopt_parts" / "settings.json").read_text())
    assert settings["template"] == "chatml"
    served = {one: gather(out / one).settings.template for one in ("align_connector", "instruct")}
    assert served == {"align_connector": "plain", "instruct": "qwen3"}
    assert gather(out).settings.template == lumoomni.load(out).layout.template == "qwen3"
    # A stage that names none speaks as the Thinker, whatever the stage before it spoke.
    build(recipe(world, "align_connector.template=plain"), out, until="instruct", progress=QUIET)
    assert gather(out).settings.template == "chatml"


def test_a_template_that_is_none_is_refused_with_both_names(
    world: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="template is 'qwen2', and the Thinker talks as 'chatml'"):
        made = recipe(world, "align_connector.template=qwen2")
        build(made, tmp_path / "x", until="align_connector", progress=QUIET)


def test_a_folder_that_is_talked_to_otherwise_is_named(
    world: dict[str, str], tmp_path: Path
) -> None:
    path = Path(world["llm"]) / "tokenizer_config.json"
    try:
        path.write_text(json.dumps({"chat_template": QWEN3}))
        for template, flagged in (("chatml", True), ("qwen3", False)):
            made = recipe(world, f"adopt_parts.template={template}")
            done = build(made, tmp_path / template, until="adopt_parts", progress=QUIET)
            said = done["adopt_parts"].report.notes.get("chat template", "")
            assert bool(said) == flagged
            assert not flagged or ("is qwen3" in said and "laid out as chatml" in said)
        path.write_text("{")
        with pytest.raises(InputError, match="is not valid JSON"):
            own_template(path.parent)
    finally:
        path.unlink()


def test_chat_templates_are_told_apart(tmp_path: Path) -> None:
    assert own_template(tmp_path) is None and mismatch(tmp_path, "chatml") == ""
    told = {
        "chatml": CHATML,
        "qwen3": QWEN3,
        OTHER: "[INST] {{ messages }} [/INST]",
    }
    for name, text in told.items():
        listed = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": text}]
        for kept in (text, listed):
            (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": kept}))
            assert own_template(tmp_path) == name
    always = QWEN3.replace("enable_thinking is false", "true")
    (tmp_path / "chat_template.jinja").write_text(always)
    assert own_template(tmp_path) == OTHER
    assert "none of ours, but sequences will be laid out as qwen3" in mismatch(tmp_path, "qwen3")
