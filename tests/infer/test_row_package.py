"""Rows come back as they were, on their own base and space alone; merged, others open them."""

import json
from pathlib import Path

import pytest
import torch

from lumoomni.codecs.facts import CodecFacts
from lumoomni.errors import InputError
from lumoomni.infer.row_package import (
    NAME,
    apply_rows,
    base_of,
    load_rows,
    merge_rows,
    save_rows,
)
from lumoomni.model.hf_weights import load_thinker, save_thinker
from lumoomni.model.rows import Rows, RowsConfig, start_from_text
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.uti.space import TokenSpace, new_space

V, D = 48, 32


def space(book: int = 16) -> TokenSpace:
    picture = CodecFacts(
        kind="image", name="p", weights="0", codebooks=1, codebook_size=book, tokens=4
    )
    return new_space(V, "t", (picture,))


def base_folder(path: Path, tied: bool, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = ThinkerConfig(
        vocab_size=V, width=D, layers=2, heads=2, kv_heads=1, head_width=16, ffn_width=48, tied=tied
    )
    save_thinker(Thinker(config), path)
    (path / "tokenizer.json").write_text("{}")
    return path


def packed(tmp_path: Path, tied: bool) -> tuple[Path, Path, Rows]:
    base = base_folder(tmp_path / "base", tied)
    rows = Rows(RowsConfig(start=V, count=len(space().new_rows), width=D, tied=tied))
    start_from_text(rows, load_thinker(base), seed=3)
    out = tmp_path / "rows"
    save_rows(out, rows, space(), base=base_of(base), base_llm="base")
    return base, out, rows


@pytest.mark.parametrize("tied", [True, False])
def test_rows_come_back_to_the_bit_in_both_files(tmp_path: Path, tied: bool) -> None:
    base, out, rows = packed(tmp_path, tied)
    found = load_rows(out, base=base_of(base), abi=space().abi)
    assert torch.equal(found.rows.row_table, rows.row_table)
    assert tied or torch.equal(found.rows.row_head, rows.row_head)
    assert found.space == space()
    older = torch.load(out / f"{NAME}.pt", weights_only=True)
    assert torch.equal(older["embeddings"], rows.row_table) and older["base_llm"] == "base"
    assert (older["row_start"], older["row_end"]) == (V, V + 64 + 16)
    assert (older["lm_head"] is None) == tied


@pytest.mark.parametrize("tied", [True, False])
def test_merged_rows_open_in_transformers_with_the_same_logits(tmp_path: Path, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    base, out, _ = packed(tmp_path, tied)
    assert merge_rows(base, out, tmp_path / "merged") == V + 80
    ids = torch.tensor([[1, V, V + 70, 5, V + 79]])
    ours = apply_rows(base, out)
    with torch.no_grad():
        want = ours.head(ours.thinker(ours.embed(ids)).hidden)
        theirs = transformers.Qwen3ForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits
    torch.testing.assert_close(theirs, want, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "merged" / "token_space.json").is_file()
    assert (tmp_path / "merged" / "tokenizer.json").is_file()
    with pytest.raises(InputError, match="is not empty"):
        merge_rows(base, out, tmp_path / "merged")


def test_another_base_is_refused_with_both_hashes(tmp_path: Path) -> None:
    base, out, _ = packed(tmp_path, True)
    other = base_folder(tmp_path / "other", True, seed=1)
    with pytest.raises(InputError, match=rf"{base_of(base)[:12]}.*{base_of(other)[:12]}"):
        apply_rows(other, out)


def test_another_space_is_refused_with_both_hashes(tmp_path: Path) -> None:
    _, out, rows = packed(tmp_path, True)
    with pytest.raises(InputError, match=rf"{space().abi[:12]}.*{space(17).abi[:12]}"):
        load_rows(out, abi=space(17).abi)
    with pytest.raises(InputError, match=r"ids 48 to 127, but the token space has .* 48 to 128"):
        save_rows(tmp_path / "x", rows, space(17), base="b", base_llm="b")


@pytest.mark.parametrize("key, value", [("row_start", 47), ("width", 31), ("abi", "0" * 64)])
def test_a_package_of_two_is_refused(tmp_path: Path, key: str, value: object) -> None:
    _, out, _ = packed(tmp_path, True)
    path = out / f"{NAME}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(InputError):
        load_rows(out)


def test_a_damaged_or_missing_file_is_one_sentence(tmp_path: Path) -> None:
    _, out, _ = packed(tmp_path, True)
    weights = out / f"{NAME}.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(InputError, match="not a readable safetensors"):
        load_rows(out)
    with pytest.raises(InputError, match="is no package of rows"):
        load_rows(tmp_path)
    with pytest.raises(InputError, match=r"holds no config.json"):
        base_of(tmp_path)


def test_a_newer_package_and_a_damaged_base_are_refused(tmp_path: Path) -> None:
    base, out, _ = packed(tmp_path, True)
    facts = json.loads((out / f"{NAME}.json").read_text())
    (out / f"{NAME}.json").write_text(json.dumps({**facts, "schema": 2, "colour": "red"}))
    with pytest.raises(InputError, match="is of schema 2, this lumoomni reads up to 1"):
        load_rows(out)
    whole = json.loads((base / "config.json").read_text())
    for damaged, why in [
        ("{", "is not valid JSON"),
        ("[]", "must hold an object"),
        (json.dumps({k: v for k, v in whole.items() if k != "hidden_size"}), "has no hidden_size"),
    ]:
        (base / "config.json").write_text(damaged)
        with pytest.raises(InputError, match=why):
            load_thinker(base)
