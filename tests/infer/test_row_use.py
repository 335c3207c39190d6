"""Rows leave their artifact and come back on the base that they were trained for, and no other."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lumoomni.artifacts import open_artifact
from lumoomni.errors import InputError
from lumoomni.infer.assemble import gather, load_part, save_part
from lumoomni.infer.base_model import load_base, open_base
from lumoomni.infer.export import export_hf
from lumoomni.infer.row_package import MAKER, NAME, apply_rows, base_of, load_rows
from lumoomni.infer.row_use import apply_package, pack_rows
from lumoomni.model.hf_weights import load_thinker, save_thinker
from lumoomni.model.rows import Rows, RowThinker
from lumoomni.stages.adopt_parts import adopted
from lumoomni.uti.space_file import save_space
from tests.tiny import text_codec
from tests.tiny_rows import MARKERS, commit, space, thinker, write_rows

pytestmark = pytest.mark.slow
IDS = torch.tensor([[5, 300, text_codec().vocab_size + 3, 17, len(space().new_rows) + 200]])


@torch.no_grad()
def logits(model: RowThinker) -> torch.Tensor:
    return model.head(model.thinker(model.embed(IDS)).hidden)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "build", thinker())


@pytest.fixture(scope="module")
def packed(build: Path) -> Path:
    pack_rows(build, build.parent / "packed")
    return build.parent / "packed"


def test_a_build_and_its_artifact_give_the_same_package(build: Path, packed: Path) -> None:
    facts = pack_rows(build / "train_rows", build.parent / "again")
    found, again = load_rows(packed), load_rows(build.parent / "again")
    rows = load_part(open_artifact(build / "train_rows"), "rows")
    assert isinstance(rows, Rows) and torch.equal(found.rows.row_table, rows.row_table)
    assert torch.equal(again.rows.row_table, rows.row_table)
    assert found.facts == again.facts == facts
    weights = open_artifact(build / "pretrain_text").manifest["files"]["thinker.safetensors"]
    assert (facts.base, facts.abi, facts.base_llm) == (
        weights["sha256"], space().abi, "pretrain_text"
    )  # fmt: skip
    assert {path.name for path in packed.iterdir()} == {
        *(f"{NAME}.{ending}" for ending in ("pt", "safetensors", "json")),
        *("token_space.json", "token_space.sha256"),
    }


def test_rows_are_a_part_of_a_model(build: Path) -> None:
    parts = gather(build)
    assert parts.sources["rows"] == "train_rows" and not parts.modules["rows"].training


@pytest.mark.parametrize(("tied", "lora"), [(True, False), (False, False), (True, True)])
def test_merged_on_an_artifact_the_folder_has_our_logits(
    tmp_path: Path, tied: bool, lora: bool
) -> None:
    transformers = pytest.importorskip("transformers")
    out = write_rows(tmp_path / "build", thinker(tied=tied), lora=lora)
    pack_rows(out, tmp_path / "packed")
    fit = apply_package(out, tmp_path / "packed", merge=tmp_path / "merged")
    assert fit.ids == text_codec().vocab_size + 80 and fit.merged == tmp_path / "merged"
    rows = load_part(open_artifact(out / "train_rows"), "rows")
    assert isinstance(rows, Rows)
    ours = logits(RowThinker(load_base(open_base(out)), rows))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, ours, rtol=1e-4, atol=1e-4)
    assert ours.abs().max() > 1
    assert (tmp_path / "merged" / "tokenizer.json").is_file()
    assert (tmp_path / "merged" / "token_space.json").is_file()


@pytest.mark.parametrize("short_conv", [0, 3])
def test_matrices_of_their_own_go_with_the_rows(tmp_path: Path, short_conv: int) -> None:
    transformers = pytest.importorskip("transformers")
    out = write_rows(tmp_path / "build", thinker(short_conv=short_conv), maker=True)
    facts = pack_rows(out, tmp_path / "packed")
    assert facts.has_maker and facts.markers == MARKERS
    # Who takes the rows alone is told that they are not all.
    assert torch.load(tmp_path / "packed" / f"{NAME}.pt", weights_only=True)["has_maker"]
    base = out / "pretrain_text"
    apply_package(base, tmp_path / "packed", merge=tmp_path / "merged")
    parts = gather(out)
    whole = RowThinker(*(parts.need(name) for name in ("thinker", "rows", "maker"))).eval()  # type: ignore[arg-type]
    folder = {"trust_remote_code": True, "dtype": torch.float32}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", **folder)
    with torch.no_grad():
        want = whole.head(whole(IDS).hidden)
        torch.testing.assert_close(theirs.eval()(IDS).logits, want, rtol=1e-4, atol=1e-4)
    assert want.abs().max() > 1 and (logits(whole) - want).abs().max() > 0.1
    # As the base is a folder of others, rows and matrices go onto what `transformers` opens.
    export_hf(base, tmp_path / "llm")
    path = tmp_path / "packed" / f"{NAME}.json"
    named = {**json.loads(path.read_text()), "base": base_of(tmp_path / "llm")}
    path.write_text(json.dumps(named))
    again = apply_rows(tmp_path / "llm", tmp_path / "packed")
    with torch.no_grad():
        torch.testing.assert_close(again.head(again(IDS).hidden), want)
    # Matrices of a Thinker of other layers.
    tensors = load_file(tmp_path / "packed" / MAKER)
    tensors.pop("blocks.0.ffn.down.weight")
    save_file(tensors, tmp_path / "packed" / MAKER)
    with pytest.raises(InputError, match="7 matrices that are not those of this Thinker's 2"):
        apply_rows(tmp_path / "llm", tmp_path / "packed")
    (tmp_path / "packed" / MAKER).unlink()
    with pytest.raises(InputError, match=r"trainable_maker\.safetensors"):
        load_rows(tmp_path / "packed")


def test_adapters_make_another_base(tmp_path: Path) -> None:
    out = write_rows(tmp_path / "build", thinker(), lora=True)
    facts = pack_rows(out, tmp_path / "packed")
    plain = open_base(out / "pretrain_text")
    assert plain.hash != facts.base == open_base(out).hash
    with pytest.raises(InputError, match=rf"base {facts.base[:12]}.* {plain.hash[:12]}"):
        apply_package(out / "pretrain_text", tmp_path / "packed")
    adapted, bare = load_base(open_base(out)), load_base(plain)
    places = [one.blocks[0].attention.qkv.weight for one in (adapted, bare)]
    assert not torch.equal(*places) and torch.equal(adapted.norm.weight, bare.norm.weight)


def test_an_adopted_thinker_is_the_same_base_as_its_folder(tmp_path: Path) -> None:
    """Rows trained on a folder's model go onto that folder, of one file or of several."""
    made = thinker()
    save_thinker(made, tmp_path / "llm")
    text_codec().save(tmp_path / "llm" / "tokenizer.json")
    (tmp_path / "llm" / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "model.safetensors"}})
    )
    out = write_rows(tmp_path / "build", made)
    facts = adopted(tmp_path / "llm", "float32")

    def text(folder: Path) -> None:
        (folder / "thinker.json").write_text(json.dumps(facts))
        text_codec().save(folder / "tokenizer.json")

    line = [commit(out / "pretrain_text", text)]
    line.append(
        commit(out / "build_token_space", lambda folder: save_space(folder, space()), *line)
    )
    rows = load_part(open_artifact(out / "train_rows"), "rows")
    commit(out / "train_rows", lambda folder: save_part(folder, "rows", rows), *line)
    packed = pack_rows(out, tmp_path / "packed")
    assert packed.base_llm == "llm"
    fit = apply_package(tmp_path / "llm", tmp_path / "packed", merge=tmp_path / "merged")
    assert fit.base == "llm" and fit.facts == packed
    grown = load_thinker(tmp_path / "merged")
    assert torch.equal(grown.token_table.weight[: made.config.vocab_size], made.token_table.weight)
    assert apply_package(out, tmp_path / "packed").facts == packed


def test_what_does_not_fit_is_refused_with_both_values(
    build: Path, packed: Path, tmp_path: Path
) -> None:
    def refused(base: Path, *words: str, **options: Path) -> None:
        with pytest.raises(InputError) as caught:
            apply_package(base, packed, **options)
        assert all(word in str(caught.value) for word in words), caught.value

    assert apply_package(build, packed).merged is None
    facts = load_rows(packed).facts
    other = write_rows(tmp_path / "other", thinker(seed=1))
    refused(other, facts.base[:12], open_base(other).hash[:12])
    # The same Thinker, but another space was laid over it afterwards.
    wider = write_rows(tmp_path / "wider", thinker(), book=17)
    refused(wider, facts.abi[:12], space(17).abi[:12])
    save_space(tmp_path / "space", space(17))
    refused(build / "pretrain_text", facts.abi[:12], space(17).abi[:12], space=tmp_path / "space")
    # The same weights under a table that is said to be smaller.
    small = tmp_path / "small"
    save_thinker(thinker(), small)
    text_codec().save(small / "tokenizer.json")
    data = json.loads((packed / f"{NAME}.json").read_text())
    folder = tmp_path / "packed"
    pack_rows(build, folder)
    (folder / f"{NAME}.json").write_text(json.dumps({**data, "base": open_base(small).hash}))
    assert apply_package(small, folder).ids == facts.row_end
    shape = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**shape, "vocab_size": 100}))
    (folder / f"{NAME}.json").write_text(json.dumps({**data, "base": open_base(small).hash}))
    with pytest.raises(InputError, match=rf"base of {facts.row_start} rows.* has 100"):
        apply_package(small, folder)


def test_another_tokenizer_is_refused_with_both_hashes(build: Path, tmp_path: Path) -> None:
    from lumoomni.codecs.text import TextCodec

    pack_rows(build, tmp_path / "packed")
    small = tmp_path / "llm"
    save_thinker(thinker(), small)
    other = TextCodec.train(["some other words altogether"] * 9, 300)
    other.save(small / "tokenizer.json")
    path = tmp_path / "packed" / f"{NAME}.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "base": open_base(small).hash}))
    with pytest.raises(InputError, match=rf"{text_codec().hash[:12]}.*{other.hash[:12]}"):
        apply_package(small, tmp_path / "packed")


def test_what_holds_no_rows_or_no_space_says_so(build: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"hold no rows\.json"):
        pack_rows(build / "pretrain_text", tmp_path / "a")
    save_thinker(thinker(), tmp_path / "llm")
    with pytest.raises(InputError, match="packed from an artifact"):
        pack_rows(tmp_path / "llm", tmp_path / "a")
    with pytest.raises(InputError, match="there is no"):
        pack_rows(tmp_path / "nothing", tmp_path / "a")
    rows = load_part(open_artifact(build / "train_rows"), "rows")
    text = open_artifact(build / "pretrain_text")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "pretrain_text").symlink_to(text.path)
    commit(alone / "train_rows", lambda folder: save_part(folder, "rows", rows), text)
    with pytest.raises(InputError, match="no token space among its ancestors"):
        pack_rows(alone / "train_rows", tmp_path / "a")
    # Nothing half done is left, and nothing that is there is written over.
    assert not (tmp_path / "a").exists() and not list(tmp_path.glob(".a*"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_text("keep")
    with pytest.raises(InputError, match="is not empty"):
        pack_rows(build, tmp_path / "a")
