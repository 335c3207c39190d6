"""Data with nothing in it stops a stage before it trains, in one sentence."""

from pathlib import Path

import pytest

from lumoomni.errors import InputError
from lumoomni.pipeline import build
from lumoomni.recipes import RECIPES
from lumoomni.runtime import Progress


@pytest.mark.parametrize("content", ["", "\n\n", '{"messages": []}\n'])
def test_an_empty_dataset_ends_the_stage_and_leaves_no_artifact(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    change = f"pretrain_text.data=jsonl:{tmp_path / 'rows.jsonl'}"
    recipe = RECIPES["nano"]().override([change, "pretrain_text.loop.steps=2"])
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        build(recipe, tmp_path / "out", until="pretrain_text", progress=Progress(silent=True))
    assert not (tmp_path / "out" / "pretrain_text").exists()
