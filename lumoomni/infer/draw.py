"""A model that draws, makes sounds and reads them: requests in words or media, answers as media.

Knows: a Thinker with new rows, the token interface, and which artifact of a build holds both.
Does not know: what is right, or files of pictures. Costs: one step of the Thinker an id; nano draws
a picture of 64 ids in well under a second, many at once hardly slower.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lumoomni.artifacts import MANIFEST, Artifact, open_artifact
from lumoomni.errors import InputError
from lumoomni.infer.assemble import gather, lineage
from lumoomni.infer.compose import ComposeConfig, Composed, compose
from lumoomni.infer.read_back import read_back
from lumoomni.infer.sampling import SamplingConfig
from lumoomni.inspection import stage_names
from lumoomni.model.rows import Rows, RowThinker, refuse_misfit
from lumoomni.model.thinker import Thinker
from lumoomni.uti.folder import KIND, STAGE
from lumoomni.uti.grammar import END, REQUEST, START
from lumoomni.uti.interface import UTI, Segment, TokenSpan

ROWS = "rows.json"


@dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """How ids are chosen: `guidance` 1 is none, `top_k` 0 is all, `temperature` 0 is greedy.

    Where a thing begins is one id among many likely ones: a low temperature draws empty grounds.
    Of `tries` pictures or sounds of a request the one is kept that is likely of its words and off
    which these are best read.
    `most` bounds the ids of a sound or a text; `batch` is how many are made at once. `watch`
    measures the constraint pressure (`infer/compose.py`).
    """

    temperature: float = 1.0
    guidance: float = 1.0
    top_k: int = 0
    seed: int = 0
    most: int = 256
    batch: int = 64
    tries: int = 1
    watch: bool = False

    def __post_init__(self) -> None:
        SamplingConfig(temperature=self.temperature, top_k=self.top_k)
        if min(self.batch, self.tries) < 1:
            raise ValueError(f"batch is {self.batch} and tries {self.tries}, use at least 1")

    def compose(self, offset: int) -> ComposeConfig:
        """The same for the requests from number `offset` on, whose chance is their own."""
        return ComposeConfig(
            sampling=SamplingConfig(temperature=self.temperature, top_k=self.top_k),
            guidance=self.guidance,
            most=self.most,
            seed=self.seed + 1_000_003 * offset,
            watch=self.watch,
        )


PICTURE = DrawConfig(temperature=0.5, guidance=1.5, tries=8)
"""How pictures come out best (`python -m benchmarks.drawing`)."""
SOUND = DrawConfig(tries=8)
"""And sounds, which guidance makes worse."""


@dataclass(frozen=True)
class Made:
    """What was asked and made: text, a picture uint8 [S, S, 3] or sound; its ids without markers.

    `pressure` is the mean probability of ids that may not follow, None if it was not watched.
    """

    asked: Segment
    made: Segment
    ids: np.ndarray
    pressure: float | None
    cut: bool = False
    """Whether a sound or a text was ended by `DrawConfig.most`."""


@dataclass(frozen=True)
class Artist:
    """Makes media of requests. The model is in evaluation mode."""

    model: RowThinker
    uti: UTI
    unproven: tuple[str, ...] = field(default=())
    """One sentence for each stage that is used although it did not pass its gate."""

    @classmethod
    def open(cls, path: Path, *, unproven: bool = False) -> "Artist":
        """The model of a build, or of an artifact with rows.

        Raises InputError when there are no rows, or when they, the Thinker and the token space do
        not belong together.
        """
        artifact = find_rows(path, unproven=unproven)
        parts = gather(artifact.path, unproven=unproven)
        thinker, rows = parts.need("thinker"), parts.need("rows")
        assert isinstance(thinker, Thinker) and isinstance(rows, Rows)
        line = lineage(artifact, unproven=unproven)
        space = next((one for one in line if one.kind in (STAGE, KIND)), None)
        if space is None:
            raise InputError(f"{artifact.path} has rows, but no token space among its ancestors")
        uti = UTI.load(space.path)
        try:
            refuse_misfit(thinker, rows.config)
        except ValueError as error:
            raise InputError(f"{artifact.path}: {error}; build train_rows again") from error
        if rows.config.count != len(uti.space.new_rows):
            raise InputError(
                f"{artifact.path} has {rows.config.count} rows, but {space.path} has "
                f"{len(uti.space.new_rows)} new ids; build train_rows again"
            )
        maker = parts.modules.get("maker")
        assert maker is None or isinstance(maker, Thinker)
        return cls(RowThinker(thinker, rows, maker).eval(), uti, parts.unproven)

    def draw(self, prompts: Sequence[str], n: int, config: DrawConfig) -> list[Made]:
        """`n` pictures of each prompt, those of one prompt after the other."""
        return self.make("image", [prompt for prompt in prompts for _ in range(n)], config)

    def sound(self, prompts: Sequence[str], n: int, config: DrawConfig) -> list[Made]:
        """`n` sounds of each prompt."""
        return self.make("audio", [prompt for prompt in prompts for _ in range(n)], config)

    def read(self, media: Sequence[Segment], config: DrawConfig) -> list[Made]:
        """The text of each picture, or of each sound."""
        return self.make("text", media, config)

    def make(self, kind: str, asked: Sequence[Segment], config: DrawConfig) -> list[Made]:
        """One answer of a kind (text, image or audio) to each request; "" asks for anything.

        Raises InputError for a kind that the space has no codec for, and for requests that are too
        long.
        """
        spans = self._spans(asked)
        # Nothing is read back of a text, nor of what nothing was asked of.
        says = kind != "text" and any(len(one.ids) for one in spans)
        tries = config.tries if says else 1
        many = [one for one in spans for _ in range(tries)]
        composed = self._composed(kind, many, config, likely=tries > 1)
        if tries > 1:
            composed = self._best(kind, spans, composed, tries)
        most = None if kind == "image" else config.most
        return [self._made(kind, *pair, most) for pair in zip(asked, composed, strict=True)]

    def _composed(
        self, kind: str, spans: Sequence[TokenSpan], config: DrawConfig, likely: bool
    ) -> list[Composed]:
        """An answer to each, `batch` at a time."""
        requests = [self.request(kind, span) for span in spans]
        empty = self.request(kind, None) if config.guidance != 1 else None
        found: list[Composed] = []
        for first in range(0, len(requests), config.batch):
            part = requests[first : first + config.batch]
            how = replace(config.compose(first), likely=likely)
            found += compose(self.model, self.uti.grammar, part, how, empty=empty)
        return found

    def _best(
        self, kind: str, spans: Sequence[TokenSpan], composed: list[Composed], tries: int
    ) -> list[Composed]:
        """Of each `tries` answers in a row the one that is likely of its words, and they of it: its
        log-probability and theirs together. What is read alone takes odd things for the right ones.
        """
        texts = [one for one in spans for _ in range(tries)]
        shown = [self.request("text", TokenSpan(kind, _inner(one))) for one in composed]
        scores = read_back(self.model, self.uti.space, texts, shown)
        scores += np.array([one.likely for one in composed])
        best = scores.reshape(-1, tries).argmax(1)
        return [composed[k * tries + int(one)] for k, one in enumerate(best)]

    def request(self, kind: str, span: TokenSpan | None) -> list[int]:
        """Ids that show a span, or say nothing, and ask for a kind."""
        shown = TokenSpan("text", np.zeros(0, np.int64)) if span is None else span
        special = self.uti.space.special
        if kind != "text":
            self.uti.space.codec("audio" if kind == "audio" else "image")  # names what is missing
        markers = special(START[shown.kind]), special(END[shown.kind])
        return [markers[0], *shown.ids.tolist(), markers[1], special(REQUEST[kind])]

    def _spans(self, asked: Sequence[Segment]) -> list[TokenSpan]:
        """Equal texts are encoded once."""
        texts = {one: self.uti.encode(one) for one in {a for a in asked if isinstance(a, str)}}
        media = iter(self.uti.encode_batch([one for one in asked if not isinstance(one, str)]))
        return [texts[one] if isinstance(one, str) else next(media) for one in asked]

    def _made(self, kind: str, asked: Segment, composed: Composed, most: int | None) -> Made:
        ids = _inner(composed)
        made, cut = self.uti.decode(TokenSpan(kind, ids)), most is not None and len(ids) >= most
        return Made(asked, made, ids, composed.pressure, cut)


def _inner(composed: Composed) -> np.ndarray:
    """Ids without their markers."""
    return np.asarray(composed.ids[1:-1], dtype=np.int64)


def shifted(config: DrawConfig, by: int) -> DrawConfig:
    """The same with another seed."""
    return replace(config, seed=config.seed + by)


def find_rows(path: Path, *, unproven: bool = False) -> Artifact:
    """The artifact at `path`, or the latest one of a build, that holds rows.

    Raises InputError when there is none, naming one that did not pass its gate.
    """
    path = Path(path)
    if not (path / "recipe.json").is_file():
        found = open_artifact(path)
        if ROWS not in found.manifest["files"]:
            raise InputError(
                f"{path} ({found.kind}) holds no rows for pictures and sounds; give a build "
                "directory, or the artifact of pretrain_tokens"
            )
        return found
    failed = ""
    for name in reversed(stage_names(path)):
        if not (path / name / MANIFEST).is_file():
            continue
        found = open_artifact(path / name)
        if ROWS in found.manifest["files"]:
            if found.passed or unproven:
                return found
            failed = failed or name
    if failed:
        raise InputError(
            f"{path / failed} did not pass its gate and is not used; look at `lumo status`, or use "
            "--unproven to try it all the same"
        )
    raise InputError(
        f"{path} cannot draw yet; build it with `lumo build RECIPE --until pretrain_tokens`"
    )
