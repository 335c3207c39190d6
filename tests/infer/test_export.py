"""An exported model is ours: `transformers` gives our logits and ids; its card says what it is."""

import json
import re
from pathlib import Path

import pytest
import torch

from lumoomni.artifacts import open_artifact
from lumoomni.errors import InputError
from lumoomni.infer import export
from lumoomni.infer.assemble import gather, load_part
from lumoomni.infer.base_model import open_base
from lumoomni.infer.export import export_hf
from lumoomni.model.rows import Rows, RowThinker
from lumoomni.model.thinker import Thinker
from tests.tiny import text_codec
from tests.tiny_rows import space, thinker, write_rows

pytestmark = pytest.mark.slow
transformers = pytest.importorskip("transformers")
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


def test_a_thinker_that_qwen3_cannot_express_is_refused_by_name(tmp_path: Path) -> None:
    build = write_rows(tmp_path / "build", thinker(short_conv=3))
    with pytest.raises(InputError, match=r"convolution of 3 taps .* thinker\.short_conv=0"):
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
