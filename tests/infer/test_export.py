"""An exported model is ours: `transformers` gives our logits and ids; its card says what it is."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lumoomni.artifacts import open_artifact
from lumoomni.errors import InputError
from lumoomni.infer import export
from lumoomni.infer.assemble import gather, load_part
from lumoomni.infer.base_model import open_base
from lumoomni.infer.export import export_hf
from lumoomni.model.hf_weights import load_thinker
from lumoomni.model.rows import Rows, RowThinker
from lumoomni.model.thinker import Thinker
from tests.tiny import text_codec
from tests.tiny_rows import space, thinker, write_rows

pytestmark = pytest.mark.slow
transformers = pytest.importorskip("transformers")
from lumoomni.model.modeling_lumoomni import CACHE  # noqa: E402

TEXT = "a large red circle above a small blue square: what colour is it? 数 é e\u0301"
TOLERANCE = 4e-5
"""As in test_hf_weights.py: logits are above 1, other weights move them by as much."""


@torch.no_grad()
def ours(model: Thinker | RowThinker, ids: torch.Tensor) -> torch.Tensor:
    body = model if isinstance(model, Thinker) else model.thinker
    return model.head(body(model.embed(ids)).hidden)


@torch.no_grad()
def theirs(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    made = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return made.eval()(input_ids=ids).logits


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [True, False])
def test_logits_are_ours(tmp_path: Path, rows: bool, tied: bool, lora: bool) -> None:
    build = write_rows(tmp_path / "build", thinker(tied=tied), lora=lora)
    model = build if rows else build / ("instruct" if lora else "pretrain_text")
    made = export_hf(model, tmp_path / "out")
    parts = gather(model)  # with its adapters on, not folded in
    whole = parts.need("thinker")
    if rows:
        new = load_part(open_artifact(build / "train_rows"), "rows")
        assert isinstance(new, Rows)
        whole = RowThinker(whole, new)
    size = text_codec().vocab_size
    assert (made.ids, made.rows) == (size + 80, 80) if rows else (size, 0)
    assert made.adapted == ("instruct" if lora else "") and made.dtype == "float32"
    ids = torch.randint(made.ids, (3, 40), generator=torch.Generator().manual_seed(1))
    assert not rows or (ids >= size).sum() > 10
    want = ours(whole, ids)
    assert want.abs().max() > 1 and want.shape[-1] == made.ids
    assert (theirs(tmp_path / "out", ids) - want).abs().max() < TOLERANCE
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    spelled = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    assert spelled[0].tolist() == text_codec().encode(TEXT)
    assert tokenizer.decode(spelled[0]) == TEXT
    assert (theirs(tmp_path / "out", spelled) - ours(whole, spelled)).abs().max() < TOLERANCE
    assert (tmp_path / "out" / "token_space.json").is_file() == rows
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    assert generation.eos_token_id == text_codec().special("<|im_end|>")


def test_the_card_tells_where_it_comes_from_and_what_was_measured(tmp_path: Path) -> None:
    build = write_rows(tmp_path / "build", thinker(), lora=True)
    export_hf(build, tmp_path / "toy")
    card = (tmp_path / "toy" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "# toy\n" in card
    stages = ("pretrain_text", "instruct", "build_token_space", "train_rows")
    for stage in stages:
        one = open_artifact(build / stage)
        assert f"| {stage} | `{one.hash}` | `{one.manifest['config_hash'][:12]}` |" in card
        gate = card.split(f"### {stage}\n", 1)[1].split("###", 1)[0]
        row = r"| `right` | 0.9 [0.5958, 0.9821] (n=10) | >= 0.5 | passed | it must be \| right |"
        assert row in gate and "did not pass" not in gate
    assert [*map(card.index, (f"### {s}\n" for s in stages))] == sorted(
        map(card.index, (f"### {s}\n" for s in stages))
    )
    parents = re.search(r"\| train_rows \|.*\| (.*) \| 7 \|", card)
    assert parents and set(parents[1].split(", ")) == set(stages[:3])
    assert space().abi in card and open_base(build).hash in card
    assert "The adapters of `instruct` are folded" in card and "template `compact`" in card
    assert str(tmp_path) not in card


def test_what_did_not_pass_is_said(tmp_path: Path) -> None:
    build = write_rows(tmp_path / "build", thinker())
    path = build / "train_rows" / "manifest.json"
    data = json.loads(path.read_text())
    data["verdict"]["passed"], data["checks"][0]["threshold"] = False, 0.99
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="did not pass its gate"):
        export_hf(build / "train_rows", tmp_path / "out")
    export_hf(build / "train_rows", tmp_path / "out", unproven=True)
    card = (tmp_path / "out" / "README.md").read_text()
    shown = card.split("### train_rows\n", 1)[1]
    assert "**This stage did not pass its gate.**" in shown and "| >= 0.99 | FAILED |" in shown
    assert "did not pass" not in card.split("### train_rows\n", 1)[0]


def test_what_stays_behind_is_named(tmp_path: Path) -> None:
    from tests.tiny import write_model

    export_hf(write_model(tmp_path / "build"), tmp_path / "out")
    said = (tmp_path / "out" / "README.md").read_text()
    assert "Not in this folder: vision, audio, image_connector, audio_connector, talker" in said


def opened(folder: Path) -> Any:
    made = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=True
    )
    return made.eval()


def whole_of(build: Path) -> RowThinker:
    """The model of a build with rows and a maker, as `Artist` puts it together."""
    parts = gather(build)
    thinker_, rows, maker = (parts.need(name) for name in ("thinker", "rows", "maker"))
    assert isinstance(rows, Rows) and isinstance(thinker_, Thinker) and isinstance(maker, Thinker)
    return RowThinker(thinker_, rows, maker).eval()


def conversation(size: int, length: int, seed: int = 1) -> torch.Tensor:
    """Text, then now and then an id of a picture, then both."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(size, (3, length), generator=generator)
    new = torch.randint(size, size + 80, (3, length), generator=generator)
    late = (torch.arange(length) > length // 3) & (torch.rand(3, length, generator=generator) < 0.2)
    return torch.where(late, new, text)


@pytest.mark.parametrize("tied", [True, False])
def test_more_than_qwen3_opens_with_its_code(tmp_path: Path, tied: bool) -> None:
    build = write_rows(tmp_path / "build", thinker(tied=tied, short_conv=3), maker=True)
    made, size = export_hf(build, tmp_path / "out"), text_codec().vocab_size
    assert (made.ids, made.rows) == (size + 80, 80)
    whole, model = whole_of(build), opened(tmp_path / "out")
    ids = conversation(size, 40)
    with torch.no_grad():
        want, got = whole.head(whole(ids).hidden), model(input_ids=ids).logits
        plain = whole.head(whole.thinker(whole.embed(ids)).hidden)
    assert want.abs().max() > 1 and (got - want).abs().max() < TOLERANCE
    # What the maker and the convolution do is seen.
    assert (plain - want).abs().max() > 0.1
    assert "runs `modeling_lumoomni.py`" in (tmp_path / "out" / "README.md").read_text()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert tokenizer(TEXT)["input_ids"] == text_codec().encode(TEXT)


def test_more_than_qwen3_generates_what_it_scores(tmp_path: Path) -> None:
    """Step by step through a cache, with padding on the left, as all at once and alone."""
    size = text_codec().vocab_size
    export_hf(write_rows(tmp_path / "build", thinker(short_conv=3), maker=True), tmp_path / "out")
    model = opened(tmp_path / "out")
    ids = conversation(size, 24)
    keys = torch.ones_like(ids)
    keys[1, :7] = 0
    how = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad():
        made = model.generate(input_ids=ids, attention_mask=keys, **how)
        for row, real in zip(made, keys, strict=True):
            alone = row[len(real) - int(real.sum()) :][None]
            scored = model(input_ids=alone).logits[0].argmax(-1)
            assert alone[0, int(real.sum()) :].tolist() == scored[int(real.sum()) - 1 : -1].tolist()
        # Without a count of positions the mask says where a row begins.
        masked = model(input_ids=ids, attention_mask=keys).logits[1, 7:]
        assert (masked - model(input_ids=ids[1:2, 7:]).logits[0]).abs().max() < TOLERANCE
    assert len({tuple(row[24:].tolist()) for row in made}) > 1
    with pytest.raises(ValueError, match="num_beams must be 1"):
        model.generate(input_ids=ids, num_beams=2, **how)
    with pytest.raises(ValueError, match="give ids"):
        model(inputs_embeds=torch.zeros(1, 2, 32))
    cache = getattr(model(input_ids=ids, use_cache=True), CACHE)
    cache.crop(-4)
    with pytest.raises(ValueError, match="holds 20 positions, but was filled with 24"):
        model(input_ids=ids[:, 20:], **{CACHE: cache})


def test_what_is_packed_into_one_row_is_scored_as_alone(tmp_path: Path) -> None:
    size = text_codec().vocab_size
    export_hf(write_rows(tmp_path / "build", thinker(short_conv=3), maker=True), tmp_path / "out")
    model, (one, two, _) = opened(tmp_path / "out"), conversation(size, 18).unbind()
    places = torch.arange(18).repeat(2)[None]
    with torch.no_grad():
        both = torch.cat([one, two])[None]
        packed = model(input_ids=both, position_ids=places, use_cache=False).logits[0]
        for ids, got in zip((one, two), packed.split(18), strict=True):
            assert (model(input_ids=ids[None]).logits[0] - got).abs().max() < TOLERANCE


def test_a_convolution_alone_goes_there_and_back(tmp_path: Path) -> None:
    made = thinker(short_conv=3)
    export_hf(write_rows(tmp_path / "build", made) / "pretrain_text", tmp_path / "out")
    again = load_thinker(tmp_path / "out")
    assert again.config == made.config
    ours_, theirs_ = made.state_dict(), again.state_dict()
    assert ours_.keys() == theirs_.keys()
    assert all(torch.equal(ours_[key], theirs_[key]) for key in ours_)
    ids = conversation(text_codec().vocab_size - 80, 20)
    with torch.no_grad():
        assert (opened(tmp_path / "out")(ids).logits - ours(made, ids)).abs().max() < TOLERANCE


def test_what_an_export_ends_with_is_not_begun_with(tmp_path: Path) -> None:
    build = write_rows(tmp_path / "build", thinker(), maker=True)
    export_hf(build, tmp_path / "out")
    with pytest.raises(InputError, match=r"matrices of their own for ids from \d+ on"):
        load_thinker(tmp_path / "out")


def test_a_thinker_that_nobody_can_express_is_refused_by_name(tmp_path: Path) -> None:
    shape = replace(thinker().config, qk_norm=False)
    build = write_rows(tmp_path / "build", Thinker(shape).eval())
    with pytest.raises(InputError, match=r"this Thinker has qk_norm=False"):
        export_hf(build, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"build"}


def test_an_interrupted_export_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = write_rows(tmp_path / "build", thinker())

    def killed(facts: object) -> str:
        assert (tmp_path / ".out.part" / "model.safetensors").is_file()
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(export, "model_card", killed)
        with pytest.raises(KeyboardInterrupt):
            export_hf(build, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"build"}
    # What a killed one left is swept, and no word of it is in the next.
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "model-00001-of-00002.safetensors").write_bytes(b"half")
    export_hf(build, tmp_path / "out")
    assert not (tmp_path / ".out.part").exists()
    assert "half" not in {
        path.read_bytes()[:4].decode("latin") for path in (tmp_path / "out").iterdir()
    }
    before = (tmp_path / "out" / "README.md").read_bytes()
    with pytest.raises(InputError, match="is not empty"):
        export_hf(build, tmp_path / "out")
    with pytest.raises(InputError, match="is a Hugging Face folder already"):
        export_hf(tmp_path / "out", tmp_path / "again")
    assert (tmp_path / "out" / "README.md").read_bytes() == before
