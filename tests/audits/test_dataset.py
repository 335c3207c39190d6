"""The gates over shards: good ones pass, each planted fault fails the gate that is meant for it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lumoomni.audits.dataset import DatasetAuditConfig, measure
from lumoomni.audits.dataset_smoke import tiny_thinker
from lumoomni.data.manifest import read_manifest, write_manifest
from lumoomni.data.shard_set import INDEX
from lumoomni.errors import InputError
from lumoomni.gates import Check, Report, exact, judge
from lumoomni.media.audio import Audio
from lumoomni.stages.tokenize import DatasetLimits, code_checks, row_checks
from lumoomni.uti.interface import UTI
from tests.shard_folder import Row, read_rows, spoil, write_shards
from tests.toy_codecs import Blocks, Loudness, toy_set, toy_uti

CONFIG = DatasetAuditConfig(context=128, sample=40, decode=10, batch=8)
LIMITS = DatasetLimits(min_codes=100, max_near=0.0, min_psnr=22, min_ssim=0.9, max_log_mel=1.5)
CHECKS = (*row_checks(LIMITS), *code_checks(LIMITS))


@dataclass(frozen=True)
class Good:
    folder: Path
    manifest: Path
    uti: UTI


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    root = tmp_path_factory.mktemp("dataset")
    uti = toy_uti()
    folder, manifest = toy_set(root, uti)
    return Good(folder, manifest, uti)


@pytest.fixture()
def mine(good: Good, tmp_path: Path) -> Good:
    """A copy that may be spoilt."""
    shutil.copytree(good.folder, tmp_path / "shards")
    shutil.copytree(good.manifest.parent, tmp_path / "media")
    return Good(tmp_path / "shards", tmp_path / "media" / good.manifest.name, good.uti)


def failures(report: Report, checks: tuple[Check, ...] = CHECKS) -> set[str]:
    verdict = judge(report, checks)
    return {one.check.metric.removeprefix("dataset.") for one in verdict.results if not one.passed}


def failing(one: Good, **changes: Any) -> set[str]:
    given: dict[str, Any] = {"uti": one.uti, "manifest": one.manifest, **changes}
    return failures(measure(one.folder, CONFIG, **given))


def planted(good: Good, out: Path, change: Callable[[list[Row]], list[Row] | None]) -> set[str]:
    """The gates that fail after rows were changed before they were written and hashed."""
    return failing(replace(good, folder=spoil(good.folder, out / "spoilt", change)))


def of(rows: list[Row], task: str, split: str = "train") -> list[Row]:
    return [row for row in rows if row["task"] == task and row["split"] == split]


def test_good_shards_pass_every_gate(good: Good) -> None:
    report = measure(good.folder, CONFIG, uti=good.uti, manifest=good.manifest)
    verdict = judge(report, CHECKS)
    assert verdict.passed, verdict.failures()
    found = report.metrics
    assert {check.metric for check in CHECKS} <= set(found)
    assert found["dataset.rows_train"].value == 80 and found["dataset.rows_eval"].value == 16
    assert found["dataset.retokenize_audio_cb1"].n >= 250
    assert found["dataset.loader_loss"].value == pytest.approx(np.log(good.uti.space.size), rel=0.2)
    assert found["dataset.length_p100"].value < 128
    # The same rows give the same numbers.
    assert measure(good.folder, CONFIG, uti=good.uti, manifest=good.manifest) == report


def test_a_codec_with_other_weights(good: Good) -> None:
    other = toy_uti(image=Blocks(weights="c" * 64))
    wrong = failing(good, uti=other)
    assert {"abi_match", "space", "loader_loss"} <= wrong
    # The same name and hash, but it hears otherwise.
    moody = toy_uti(audio=Loudness(gain=1.4))
    assert moody.space.abi == good.uti.space.abi
    assert failing(good, uti=moody) == {"retokenize_audio"}


class Dark(Blocks):
    """Decodes the right picture, a tenth too dark."""

    def decode(self, coded: Any, /) -> np.ndarray:
        return (super().decode(coded).astype(np.int64) - 25).clip(0, 255).astype(np.uint8)


class Turned(Blocks):
    """Decodes with red and blue changed about."""

    def decode(self, coded: Any, /) -> np.ndarray:
        return super().decode(coded)[..., ::-1].copy()


class Quiet(Loudness):
    """Decodes the right sound, at a quarter of its loudness."""

    def decode(self, coded: Any, /) -> Audio:
        made = super().decode(coded)
        return Audio(made.samples * 0.25, made.rate)


def test_decoding_that_is_nearer_to_its_own_and_wrong(good: Good) -> None:
    """Codes are the stored ones, and each medium is nearest to its own: the limits alone see it."""
    dark = toy_uti(image=Dark(), audio=Quiet())
    assert failing(good, uti=dark) == {"psnr", "log_mel"}
    assert {"psnr", "ssim"} <= failing(good, uti=toy_uti(image=Turned()))


NANO: dict[str, tuple[dict[str, float], set[str]]] = {
    "as they are": ({"psnr": 31.2, "ssim": 0.910, "log_mel": 1.36}, set()),
    "two colours swapped": ({"psnr": 20.9, "ssim": 0.887, "log_mel": 1.36}, {"psnr"}),
    "20 levels too dark": ({"psnr": 21.6, "ssim": 0.891, "log_mel": 1.36}, {"psnr"}),
    "mirrored": ({"psnr": 17.6, "ssim": 0.638, "log_mel": 1.36}, {"psnr", "ssim"}),
    "a quarter as loud": ({"psnr": 31.2, "ssim": 0.910, "log_mel": 2.95}, {"log_mel"}),
    "noise of 0.01": ({"psnr": 31.2, "ssim": 0.910, "log_mel": 3.22}, {"log_mel"}),
    "muffled": ({"psnr": 31.2, "ssim": 0.910, "log_mel": 2.48}, {"log_mel"}),
}
"""What was measured of nano's codecs, 24 media each, with faults planted in `decode`, and the gates
that see them."""


@pytest.mark.parametrize("fault", NANO)
def test_the_usual_limits_tell_nanos_codecs_from_faulty_ones(fault: str) -> None:
    measured, seen = NANO[fault]
    names = {f"dataset.{name}": exact(value, 24) for name, value in measured.items()}
    wanted = tuple(check for check in code_checks(DatasetLimits()) if check.metric in names)
    assert len(wanted) == 3
    assert failures(Report(metrics=names), wanted) == seen


def test_a_shifted_range(good: Good, tmp_path: Path) -> None:
    def shift(rows: list[Row]) -> None:
        of(rows, "i2t")[3]["image"] = of(rows, "i2t")[3]["image"] + 300

    assert {"in_range", "retokenize_image", "decode_image"} <= planted(good, tmp_path, shift)

    def words(rows: list[Row]) -> None:
        of(rows, "t2a")[3]["text"] = np.array([5, good.uti.space.named("TEXT").end + 1])

    assert {"in_range", "retokenize_text"} <= planted(good, tmp_path / "b", words)


def test_swapped_codebooks(good: Good, tmp_path: Path) -> None:
    def swap(rows: list[Row]) -> None:
        for one in rows:
            one["audio"] = one["audio"].reshape(-1, 2)[:, ::-1].reshape(-1)

    wrong = planted(good, tmp_path, swap)
    assert {"retokenize_audio", "log_mel"} & wrong and "in_range" not in wrong


def test_half_a_frame_or_picture(good: Good, tmp_path: Path) -> None:
    def shorten(rows: list[Row]) -> None:
        of(rows, "a2t")[0]["audio"] = of(rows, "a2t")[0]["audio"][:-1]

    assert "shapes" in planted(good, tmp_path, shorten)

    def crop(rows: list[Row]) -> None:
        of(rows, "t2i")[0]["image"] = of(rows, "t2i")[0]["image"][:-1]

    assert "shapes" in planted(good, tmp_path / "b", crop)

    def count(rows: list[Row]) -> None:
        of(rows, "t2a")[0]["frames"] += 1

    assert "shapes" in planted(good, tmp_path / "c", count)


def test_a_leaked_clip(good: Good, tmp_path: Path) -> None:
    def leak(rows: list[Row]) -> None:
        from_train, held = of(rows, "a2t")[0], of(rows, "a2t", "eval")[0]
        for name in ("audio", "frames", "audio_sha256", "meta"):
            held[name] = from_train[name]

    assert {"split_overlap"} <= planted(good, tmp_path, leak)

    def beside(rows: list[Row]) -> None:
        """The same clip, where training shows a picture with it."""
        leak(rows)
        of(rows, "a2t")[0]["image_sha256"] = "f" * 64

    assert {"split_overlap"} <= planted(good, tmp_path / "b", beside)


def test_what_a_data_set_holds_out_is_trained_on(good: Good, tmp_path: Path) -> None:
    def train_on(rows: list[Row]) -> None:
        of(rows, "i2t")[0]["official"] = "test"

    assert planted(good, tmp_path, train_on) == {"official_overlap"}

    def unknown(rows: list[Row]) -> None:
        of(rows, "i2t")[0]["official"] = "holdout-b"

    assert planted(good, tmp_path / "b", unknown) == {"official_overlap"}


def test_nearly_the_same_medium_on_both_sides(good: Good, tmp_path: Path) -> None:
    def near(rows: list[Row]) -> None:
        source, held = of(rows, "a2t")[0], of(rows, "a2t", "eval")[0]
        held["audio"], held["frames"] = source["audio"].copy(), source["frames"]
        held["audio"][-1] ^= 1

    wrong = planted(good, tmp_path, near)
    assert "near_duplicates" in wrong and "split_overlap" not in wrong


@pytest.mark.parametrize("damage", ["flipped", "high", "truncated", "gone"])
def test_a_damaged_file(mine: Good, damage: str) -> None:
    path = sorted(mine.folder.rglob("*.arrow"))[-1]
    whole = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(whole[:-900] + bytes([whole[-900] ^ 1]) + whole[-899:])
    elif damage == "high":  # no UTF-8 any more, wherever a name lies
        place = whole.index(b"i2t")
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 128]) + whole[place + 1 :])
    elif damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.unlink()
    wrong = failing(mine)
    assert {"files_whole", "schema", "loader_loss"} <= wrong


def test_other_columns(mine: Good) -> None:
    import hashlib

    from lumoomni.data.shards import pyarrow

    arrow = pyarrow()
    path = sorted(mine.folder.rglob("*.arrow"))[0]
    batch = arrow.ipc.open_file(path.read_bytes()).get_batch(0)
    fewer = batch.select([name for name in batch.schema.names if name != "official"])
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_file(sink, fewer.schema) as out:
        out.write_batch(fewer)
    data = sink.getvalue().to_pybytes()
    path.write_bytes(data)
    index = json.loads((mine.folder / INDEX).read_text())
    said = index["files"][path.relative_to(mine.folder).as_posix()]
    said |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (mine.folder / INDEX).write_text(json.dumps(index))
    wrong = failing(mine)
    assert {"schema", "rows_listed", "loader_loss"} <= wrong and "files_whole" not in wrong


def test_nothing_at_all_or_nothing_held_out(good: Good, tmp_path: Path) -> None:
    wrong = planted(good, tmp_path, lambda rows: [])
    assert {"rows_train", "rows_eval", "files_whole", "in_range", "retokenize_image"} <= wrong
    wrong = planted(good, tmp_path / "b", lambda rows: [r for r in rows if r["split"] == "train"])
    assert {"rows_eval", "near_duplicates"} == wrong
    with pytest.raises(InputError, match=r"has no shards\.json"):
        measure(tmp_path, CONFIG)


def test_shards_of_another_space(good: Good, tmp_path: Path) -> None:
    folder = write_shards(
        tmp_path / "other", good.uti.space, read_rows(good.folder), note_abi="0" * 64
    )
    assert {"abi_match", "loader_loss"} <= failing(replace(good, folder=folder))


def test_a_listing_that_was_changed_by_hand(mine: Good) -> None:
    index = json.loads((mine.folder / INDEX).read_text())
    index["abi"] = "0" * 64
    (mine.folder / INDEX).write_text(json.dumps(index))
    assert {"space", "loader_loss"} <= failing(mine)


@pytest.mark.parametrize(
    "name, said",
    [
        ("files", []),
        ("files", {"train/shard-00000.arrow": "abc"}),
        ("counts", [1, 2]),
        ("counts", {"train": 5}),
        ("counts", {"train": {}}),
    ],
)
def test_a_listing_that_is_no_table_is_damaged(mine: Good, name: str, said: Any) -> None:
    index = json.loads((mine.folder / INDEX).read_text())
    (mine.folder / INDEX).write_text(json.dumps({**index, name: said}))
    with pytest.raises(InputError, match=r"shards\.json is damaged .*tokenize again"):
        measure(mine.folder, CONFIG)


def test_a_file_without_a_hash_counts_as_changed(mine: Good) -> None:
    index = json.loads((mine.folder / INDEX).read_text())
    del next(said for name, said in index["files"].items() if name.endswith(".arrow"))["sha256"]
    (mine.folder / INDEX).write_text(json.dumps(index))
    assert {"files_whole", "schema"} <= failing(mine)


def test_an_id_or_a_row_twice(good: Good, tmp_path: Path) -> None:
    def rename(rows: list[Row]) -> None:
        of(rows, "i2t")[1]["id"] = of(rows, "i2t")[0]["id"]

    assert "duplicate_ids" in planted(good, tmp_path, rename)

    def repeat(rows: list[Row]) -> list[Row]:
        again = [{**row, "id": row["id"] + "-again"} for row in of(rows, "a2t")[:8]]
        return rows + again

    assert "duplicate_rows" in planted(good, tmp_path / "b", repeat)


def test_an_original_that_was_changed_or_is_gone(mine: Good) -> None:
    pictures = sorted(mine.manifest.parent.rglob("*.png"))
    shutil.copyfile(pictures[0], pictures[1])
    assert failing(mine) == {"assets_changed", "retokenize_image"}
    pictures[1].unlink()
    assert failing(mine) == {"assets_lost"}


def test_a_manifest_of_other_words(mine: Good) -> None:
    records = list(read_manifest(mine.manifest))
    write_manifest(
        mine.manifest, [replace(one, text="something else") for one in records], source="toy"
    )
    assert failing(mine) == {"manifest", "retokenize_text"}


def test_labels_missing(good: Good, tmp_path: Path) -> None:
    def hush(rows: list[Row]) -> None:
        of(rows, "a2t")[0]["text"] = np.zeros(0, np.int32)

    assert {"without_labels", "shapes", "retokenize_text"} == planted(good, tmp_path, hush)


def test_a_decoder_that_shows_something_else(good: Good) -> None:
    """The same picture for all, of the right size: only its original can tell."""
    uti = toy_uti(image=Blocks(barcode=True))
    wrong = failing(good, uti=uti)
    assert {"decode_image_right", "psnr"} <= wrong and "decode_image" not in wrong
    assert "decode_image" in failing(good, uti=toy_uti(image=Blocks(larger=True)))


def test_a_thinker_that_cannot_learn(good: Good) -> None:
    """A given Thinker gets new rows; one with a broken weight gives no finite loss."""
    space = good.uti.space
    base = tiny_thinker(space, 128, 0).config
    from lumoomni.model.thinker import Thinker

    thinker = Thinker(replace(base, vocab_size=space.named("TEXT").size))
    before = thinker.token_table.weight.clone()
    assert failing(good, thinker=thinker) == set()
    assert torch.equal(thinker.token_table.weight, before)
    with torch.no_grad():
        thinker.norm.weight.fill_(float("nan"))
    assert failing(good, thinker=thinker) == {"loader_loss", "loader_gradient"}
    with torch.no_grad():
        thinker.norm.weight.zero_()
    assert failing(good, thinker=thinker) == {"loader_gradient"}


def test_too_long_and_cut(good: Good) -> None:
    tight = replace(CONFIG, context=30)
    report = measure(good.folder, tight, uti=good.uti, manifest=good.manifest)
    assert {"too_long", "cut"} <= failures(report)
    assert (
        report.metrics["dataset.length_p100"].value
        > 30
        >= report.metrics["dataset.length_p50"].value
    )


def test_silence_and_pictures_of_one_colour(tmp_path: Path) -> None:
    uti = toy_uti()
    folder, manifest = toy_set(tmp_path, uti, blank=3)
    found = measure(folder, CONFIG, uti=uti, manifest=manifest)
    assert {"silent", "solid"} <= failures(found)
    assert found.metrics["dataset.silent"].value == pytest.approx(3 / 24)


def test_without_codecs_the_codes_are_not_judged_good(good: Good) -> None:
    report = measure(good.folder, CONFIG)
    assert failures(report, row_checks(LIMITS)) == set()
    missing = {check.metric.removeprefix("dataset.") for check in code_checks(LIMITS)}
    assert failures(report) == missing and "not compared" in report.notes["codes"]
