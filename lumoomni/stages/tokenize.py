"""Track B, `tokenize`: the micro-world's pictures and sounds become shards of tokens, gated.

Writes the world's media and their manifest into the build's cache, tokenizes them in the space of
`build_token_space`, measures the shards, and saves them with the manifest. Does not know: codecs.
Costs: drawing, speaking and encoding each item once; an interrupted run goes on where it stopped.

The gate is that of any shards, `lumo data verify` holds it too: whole files of this space, ids in
range, nothing held out that is trained on, the same codes when the originals are encoded again.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from lumoomni.audits.dataset import DatasetAuditConfig, measure
from lumoomni.config import WITHOUT_EFFECT, config_hash
from lumoomni.data.manifest_builders import ManifestConfig, build_manifest
from lumoomni.data.manifest_world import WorldConfig
from lumoomni.data.tokenize_run import tokenize
from lumoomni.gates import Check, Op, Report
from lumoomni.pipeline import StageContext
from lumoomni.uti.interface import UTI

SHARDS, MANIFEST = "shards", "manifest.jsonl"


@dataclass(frozen=True, kw_only=True)
class DatasetLimits:
    """What shards must reach.

    How well a codec decodes is its own stage's business. Here a broken decoder must be seen: of
    `nano`'s codecs, which reach 31.2 dB, 0.91 and 1.36, one with two colours swapped gives 20.9 dB,
    one that is 20 levels too dark 21.6 dB, a mirrored one an SSIM of 0.64, one at a quarter of the
    loudness 2.95, noise of 0.01 3.2 and muffled sound 2.5. Coarser codecs need their own numbers.
    """

    kinds: tuple[str, ...] = ("image", "audio")
    min_train: int = 1
    min_eval: int = 1
    max_mismatch: float = 0.001
    min_codes: int = 1000
    """Codes of each kind that must have been compared."""
    min_right: float = 0.9
    min_psnr: float = 25.0
    min_ssim: float = 0.8
    max_log_mel: float = 2.2
    max_near: float = 0.05
    max_repeated: float = 0.05
    max_left_out: float = 0.05
    max_cut: float = 0.01
    max_too_long: float = 0.01
    max_blank: float = 0.01
    """Share of silent sounds, and of pictures of one colour."""


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """`manifest.world.seed` is set from the build's."""

    manifest: ManifestConfig = field(
        default_factory=lambda: ManifestConfig(both_ways=True, world=WorldConfig())
    )
    rows_per_shard: int = 1000
    workers: int = field(default=1, metadata=WITHOUT_EFFECT)
    audit: DatasetAuditConfig = field(default_factory=DatasetAuditConfig)
    limits: DatasetLimits = field(default_factory=DatasetLimits)


def run(context: StageContext) -> Report:
    """Make the media and the manifest, tokenize, measure; saves `shards` and `manifest.jsonl`."""
    config: TokenizeConfig = context.config
    space = context.parents["build_token_space"].path
    world = replace(config.manifest.world, seed=context.seed)
    settings = replace(config.manifest, world=world)
    # Named by what makes it, so that other settings never meet these files.
    folder = context.cache / f"world-{config_hash(settings)[:16]}"
    manifest = folder / MANIFEST
    build_manifest("world", folder / "media", manifest, config=settings)
    shards = context.work / SHARDS
    tokenize(
        manifest,
        space,
        shards,
        workers=config.workers,
        max_bad=config.limits.max_left_out,
        rows_per_shard=config.rows_per_shard,
        progress=context.progress,
    )
    context.progress.say(f"{context.name}: encoding a sample again, and looking at every row")
    report = measure(shards, config.audit, uti=UTI.load(space), manifest=manifest)
    shutil.copytree(shards, context.out / SHARDS)
    shutil.copyfile(manifest, context.out / MANIFEST)
    return report


def checks(config: TokenizeConfig) -> tuple[Check, ...]:
    """The gate of the stage."""
    return (*row_checks(config.limits), *code_checks(config.limits))


def row_checks(limits: DatasetLimits) -> tuple[Check, ...]:
    """What shards must reach by themselves."""
    every: list[tuple[str, Op, float, str]] = [
        ("files_whole", ">=", 1, "every file must be the one that was written"),
        ("schema", ">=", 1, "every file must have the columns of a shard"),
        ("abi_match", ">=", 1, "ids of another space mean other things"),
        ("space", ">=", 1, "the shards' own space must hash to what they say, and be the one used"),
        ("rows_listed", ">=", 1, "there must be as many rows as the listing counts"),
        ("rows_train", ">=", limits.min_train, "there must be something to train on"),
        ("rows_eval", ">=", limits.min_eval, "there must be something held out"),
        ("left_out", "<=", limits.max_left_out, "records that cannot be used bias what is left"),
        ("in_range", ">=", 1, "an id outside its range is another symbol, or none"),
        ("shapes", ">=", 1, "half a frame or picture cannot be decoded"),
        ("split_overlap", "<=", 0, "what is measured on must not be trained on"),
        ("official_overlap", "<=", 0, "what a data set holds out must not be trained on"),
        (
            "near_duplicates",
            "<=",
            limits.max_near,
            "nearly the same media must not be on two sides",
        ),
        ("duplicate_ids", "<=", 0, "an id must name one sample"),
        ("duplicate_rows", "<=", limits.max_repeated, "rows that repeat others weigh too much"),
        ("cut", "<=", limits.max_cut, "a cut text teaches half of what was said"),
        ("too_long", "<=", limits.max_too_long, "what does not fit is never learned"),
        ("without_labels", "<=", 0, "every sample must teach something"),
        ("loader_labels", ">=", 1, "every sample of a real batch must have labels"),
        ("loader_loss", "<=", 100, "a real batch must give a finite loss of the size of chance"),
        ("loader_gradient", ">=", 1, "the loss of a real batch must reach every parameter"),
        ("loader_resumes", ">=", 1, "reading must go on where it stopped"),
    ]
    return tuple(_check(*one) for one in every)


def code_checks(limits: DatasetLimits) -> tuple[Check, ...]:
    """What their codes must reach, which needs the codecs and the originals."""
    every = [
        _check("manifest", ">=", 1, "these must be the records that the shards were made from"),
        _check("assets_lost", "<=", 0, "an original that is gone proves nothing"),
        _check("assets_changed", "<=", 0, "an original that was changed has other codes"),
        _check("retokenize_text", "<=", 0, "a text's ids must be those of its words"),
    ]
    for kind in limits.kinds:
        every += _kind_checks(kind, limits)
    return tuple(every)


def _kind_checks(kind: str, limits: DatasetLimits) -> Iterator[Check]:
    yield _check(
        f"retokenize_{kind}",
        "<=",
        limits.max_mismatch,
        "encoding the originals again must give the same codes, in the worst codebook too",
        limits.min_codes,
    )
    yield _check(f"decode_{kind}", ">=", 1, "decoded media must have their size")
    yield _check(
        f"decode_{kind}_right",
        ">=",
        limits.min_right,
        "decoded codes must be nearer to their own original than to another's",
    )
    if kind == "image":
        yield _check("psnr", ">=", limits.min_psnr, "pictures must survive in their codes")
        yield _check("ssim", ">=", limits.min_ssim, "pictures must survive in their codes")
        yield _check("solid", "<=", limits.max_blank, "pictures of one colour show nothing")
    else:
        yield _check("log_mel", "<=", limits.max_log_mel, "sounds must survive in their codes")
        yield _check("silent", "<=", limits.max_blank, "silence says nothing")


def _check(name: str, op: Op, threshold: float, why: str, least: int = 1) -> Check:
    return Check(metric=f"dataset.{name}", op=op, threshold=threshold, why=why, min_n=least)
