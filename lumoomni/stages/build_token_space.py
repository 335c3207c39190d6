"""Track B's stage 1, `build_token_space`: one id space for text, pictures and sound, audited.

Copies the tokenizer and the codecs that earlier stages made, lays their ids side by side, and holds
the result to the audit of audits/tokens.py. Nothing is trained. The gate: the same codes every
time, in their places, that decode; and, with a `baseline`, decoding no worse than there.

The artifact is a token space as `lumo tokens build` makes one: whoever opens it needs nothing else.
"""

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from lumoomni.audits.token_inputs import held_out
from lumoomni.audits.token_report import (
    BASELINE,
    RULES,
    baseline_checks,
    compare,
    read_baseline,
    run_of,
    write_examples,
    write_report,
)
from lumoomni.audits.tokens import TokenAuditConfig, audit_folder, codec_checks, text_checks
from lumoomni.codecs.facts import Kind
from lumoomni.codecs.stored import IMAGE, SOUND, SPEECH
from lumoomni.codecs.text import TextCodec
from lumoomni.config import canonical_json, to_dict
from lumoomni.gates import Check, Report, judge
from lumoomni.infer.assemble import checked, holder, load_part, load_settings
from lumoomni.infer.tokens import save_codecs, write_space
from lumoomni.model.thinker import Thinker
from lumoomni.pipeline import StageContext
from lumoomni.uti.folder import TOKENIZER
from lumoomni.uti.interface import UTI

SOUNDS_KEPT = 3
SOUND_STAGE = "train_sound_codec"


@dataclass(frozen=True, kw_only=True)
class BuildTokenSpaceConfig:
    """`pictures` says whether the space holds a picture codec, `codebooks` are the speech codec's.

    `baseline` is the `report.json` of another run's audit, or empty.
    """

    pictures: bool = True
    codebooks: int = 2
    audit: TokenAuditConfig = field(default_factory=TokenAuditConfig)
    baseline: str = ""


def run(context: StageContext) -> Report:
    """Write the space's folder, audit it as another process opens it, keep examples and report."""
    config: BuildTokenSpaceConfig = context.config
    before = read_baseline(Path(config.baseline)) if config.baseline else None
    uti = _assemble(context)
    inputs = held_out(
        uti.space,
        pictures=config.audit.pictures,
        sentences=config.audit.sentences,
        seed=context.seed,
    )
    found = audit_folder(uti, context.out, inputs)
    report, about = found.report, run_of(_name(context), uti, inputs)
    if before is not None:
        moved, _ = compare(about, report, before)
        report = Report(
            metrics={**report.metrics, **moved.metrics}, notes={**report.notes, **moved.notes}
        )
        shutil.copyfile(config.baseline, context.out / BASELINE)
    wanted = checks(config)
    write_examples(context.out, found, SOUNDS_KEPT)
    write_report(context.out, about, found, report, wanted, judge(report, wanted))
    return report


def _assemble(context: StageContext) -> UTI:
    config: BuildTokenSpaceConfig = context.config
    parents = context.parents
    image = load_part(holder(parents, f"{IMAGE}.json"), IMAGE) if config.pictures else None
    sounds = SOUND if SOUND_STAGE in parents else SPEECH
    speech = load_part(holder(parents, f"{sounds}.json"), sounds)
    settings = load_settings(holder(parents, "settings.json"))
    thinker = load_part(holder(parents, "thinker.json"), "thinker")
    assert isinstance(thinker, Thinker)
    text_codec = TextCodec.load(checked(holder(parents, TOKENIZER), TOKENIZER))
    entries = save_codecs(context.out, image, speech, settings.mel)
    text_codec.save(context.out / TOKENIZER)
    # The date is in the manifest: here it would give every build another identity.
    made = {"at": None, "from": {name: parent.hash for name, parent in parents.items()}}
    return write_space(context.out, text_codec, thinker.config.vocab_size, entries, made)


def _name(context: StageContext) -> str:
    """Names the run: the same build again is the same run, and no baseline for itself."""
    what = {
        "stage": context.name,
        "config": {**to_dict(context.config), "baseline": ""},
        "parents": {name: parent.hash for name, parent in context.parents.items()},
        "seed": context.seed,
    }
    return hashlib.sha256(canonical_json(what).encode()).hexdigest()


def checks(config: BuildTokenSpaceConfig) -> tuple[Check, ...]:
    """The gate."""
    books: dict[Kind, int] = {"image": 1} if config.pictures else {}
    books["audio"] = config.codebooks
    found = text_checks()
    for kind, count in books.items():
        found += codec_checks(kind, count, config.audit)
    if config.baseline:
        found += baseline_checks([rule for rule in RULES if rule.kind in books])
    return tuple(found)
