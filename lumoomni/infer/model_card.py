"""The README.md of an exported model: where it comes from, and what its gates measured.

Knows: manifests. Does not know: weights, or where anything lies: no path enters a card.
Costs: nothing; text of facts that are there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lumoomni.artifacts import Artifact
from lumoomni.gates import CheckResult, checks_from_dict, judge
from lumoomni.model.thinker import ThinkerConfig
from lumoomni.uti.space import TokenSpace

UNDONE = "**This stage did not pass its gate.**"


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card tells. `line` is an artifact and its ancestors, the latest first.

    `base` is the hash of the Thinker, `adapted` the stage whose adapters are folded in, `maker`
    whether new ids have matrices of their own, `parts` what is in the model and not in the
    folder.
    """

    name: str
    line: tuple[Artifact, ...]
    base: str
    shape: ThinkerConfig
    dtype: str
    ids: int
    adapted: str = ""
    space: TokenSpace | None = None
    maker: bool = False
    template: str = ""
    parts: tuple[str, ...] = ()


def model_card(facts: CardFacts) -> str:
    """Markdown with the header that the hub reads."""
    line = list(reversed(facts.line))  # as it was built
    blocks = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- lumoomni\n---",
        f"# {facts.name}",
        _what(facts),
        "## Lineage",
        "Each artifact names its parents by their hashes, and is named by what it holds.",
        _table(
            ("stage", "artifact", "config", "parents", "seed"),
            [
                (
                    one.kind,
                    f"`{one.hash}`",
                    f"`{one.manifest['config_hash'][:12]}`",
                    ", ".join(one.manifest["parents"]) or "none",
                    str(one.manifest["seed"]),
                )
                for one in line
            ],
        ),
        "## Gates",
        "Measured on held-out data when the stage was built; intervals are of 95 %.",
    ]
    for one in line:
        verdict = judge(one.report, checks_from_dict(one.manifest["checks"]))
        blocks.append(f"### {one.kind}")
        blocks += [] if verdict.passed and one.passed else [UNDONE]
        blocks.append(_gate(one, verdict.results))
    return "\n\n".join(blocks) + "\n"


def _what(facts: CardFacts) -> str:
    shape = facts.shape
    kind = "Qwen3" if shape.moe is None else "Qwen3-MoE"
    said = [
        f"A text model in the format of {kind}: {shape.layers} layers of width {shape.width}, "
        f"{facts.ids:,} ids, {facts.dtype}.",
        f"Its Thinker is `{facts.base}`.",
    ]
    more = [f"a convolution over {shape.short_conv} earlier embeddings"] * bool(shape.short_conv)
    more += ["matrices of its own for new ids and what is said of them"] * facts.maker
    if more:
        said.append(
            f"It also has {' and '.join(more)}: open it with `trust_remote_code=True`, which runs "
            "`modeling_lumoomni.py` of this folder."
        )
    if facts.adapted:
        said.append(f"The adapters of `{facts.adapted}` are folded into its weights.")
    if facts.space is not None:
        new = facts.space.new_rows
        said.append(
            f"Ids {new.start:,} to {new.stop - 1:,} are new symbols, for pictures and sound; what "
            f"they mean is in `token_space.json`, ABI `{facts.space.abi}`."
        )
    if facts.template:
        said.append(f"Conversations were learned with the template `{facts.template}`.")
    if facts.parts:
        said.append(f"Not in this folder: {', '.join(facts.parts)}.")
    return "\n".join(said)


def _gate(artifact: Artifact, results: Sequence[CheckResult]) -> str:
    rows = []
    for one in results:
        metric = artifact.report.metrics.get(one.check.metric)
        limit = "" if one.limit is None else f"{one.check.op} {one.limit:.4g}"
        bound = "" if one.check.bound == "value" else f" ({one.check.bound} end)"
        found = "not measured" if metric is None else str(metric)
        state = "passed" if one.passed else "FAILED"
        rows.append((f"`{one.check.metric}`", found, limit + bound, state, one.check.why))
    return _table(("measure", "value [95 % CI] (n)", "needed", "", "why"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(one) for one in line)} |" for line in lines)


def _cell(text: str) -> str:
    """A bar would end the cell."""
    return " ".join(text.replace("|", "\\|").split())
