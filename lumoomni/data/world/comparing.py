"""Two pictures side by side: which of them has it, and what the first or the second shows.

Knows scenes, not pixels: the same questions serve pictures and described scenes. A question costs
about 30 microseconds.
"""

import numpy as np

from lumoomni.data.world.asking import QA, Phrasings, accept, word
from lumoomni.data.world.counting import number_forms
from lumoomni.data.world.language import article, caption
from lumoomni.data.world.scene import Scene, make_scene
from lumoomni.data.world.split import pairs_of, pick, rng

WHICH = Phrasings(
    (
        "Which picture has {x}?",
        "Which picture shows {x}?",
        "In which picture is there {x}?",
        "Which of the pictures has {x}?",
        "Which one has {x}?",
        "Which of the two shows {x}?",
        "Say which picture shows {x}.",
        "Tell me which of the pictures has {x}.",
        "In which of the two pictures do you see {x}?",
        "Is it the first or the second picture that has {x}?",
    ),
    ("Which of the pictures shows {x}?", "Tell me which picture has {x}."),
)
SHOWN = Phrasings(
    (
        "What is in the {n} picture?",
        "What do you see in the {n} picture?",
        "Describe the {n} picture.",
    ),
    ("Tell me what is in the {n} picture.",),
)
COUNTED = Phrasings(
    (
        "How many shapes are in the {n} picture?",
        "How many things can you see in the {n} picture?",
    ),
    ("Tell me how many shapes are in the {n} picture.",),
)
HAS = Phrasings(
    (
        "Is there {x} in the {n} picture?",
        "Can you see {x} in the {n} picture?",
        "Does the {n} picture have {x}?",
        "Do you see {x} in the {n} picture?",
        "Yes or no, is there {x} in the {n} picture?",
        "Look at the {n} picture: is there {x}?",
        "Is it true that there is {x} in the {n} picture?",
    ),
    ("Tell me, is there {x} in the {n} picture?",),
)
ORDER = ("first", "second")
SHARES = {"which": 0.56, "has": 0.24, "shown": 0.12, "counted": 0.08}
"""How often each kind is asked. Whether a picture has something is half the way to which has."""
NOWHERE = 0.4
"""Share of things asked for and not there that are in the other picture neither: with none, a
yes is a matter of both pictures at once, which is learned late if at all."""


def two_scenes(seed: int, split: str, index: int) -> tuple[Scene, Scene]:
    """Two scenes of one or two things each; outside training the first is the split's own."""
    stream = rng(seed, "two-scenes", split, index)
    one, two = (1 + int(n) for n in stream.integers(2, size=2))
    first = make_scene(seed, split, 2 * index, one)
    other = make_scene(seed, "seen" if split == "unseen" else split, 2 * index + 1, two)
    return (first, other) if stream.random() < 0.5 else (other, first)


def compared(scenes: tuple[Scene, Scene], stream: np.random.Generator, kind: str = "") -> QA:
    """A question about two scenes, of a kind in SHARES or drawn by these."""
    kind = kind or str(stream.choice(list(SHARES), p=list(SHARES.values())))
    number = int(stream.integers(2))
    if kind in ("which", "has") and not _only_here(scenes[number], scenes[1 - number]):
        number = 1 - number  # two things of which the other picture shows one
    scene, other = scenes[number], scenes[1 - number]
    split = "unseen" if "unseen" in (scene.split, other.split) else scene.split
    name = ORDER[number]
    if kind == "which" and (options := _only_here(scene, other)):
        asked = word(WHICH, split, stream, x=pick(stream, options))
        accepted = accept(f"the {name}", name, f"the {name} one", f"the {name} picture")
    elif kind == "has" and (options := _only_here(scene, other)):
        here = bool(stream.random() < 0.5)
        if not here and stream.random() < NOWHERE:
            options = _nowhere(split, scenes)
        asked = word(HAS, split, stream, x=pick(stream, options), n=ORDER[number ^ (not here)])
        accepted = accept("yes" if here else "no")
    elif kind == "counted":
        asked = word(COUNTED, split, stream, n=name)
        accepted = number_forms(len(scene.things))
    else:
        asked = word(SHOWN, split, stream, n=name)
        accepted = accept(caption(scene))
    return QA(asked.text, accepted[0], kind, accepted, asked.held_out)


def _nowhere(split: str, scenes: tuple[Scene, Scene]) -> list[str]:
    """Pairs that neither picture shows."""
    here = {thing.pair for scene in scenes for thing in scene.things}
    return [f"{article(c)} {s}" for c, s in pairs_of(split) if (c, s) not in here]


def _only_here(scene: Scene, other: Scene) -> list[str]:
    """Names of things that one picture shows and the other does not."""

    def names(shown: Scene) -> set[str]:
        found = set()
        for thing in shown.things:
            colour, shape, size = thing.colour, thing.shape, thing.size
            found |= {
                f"{article(colour)} {shape}",
                article(shape),
                f"{article(colour)} thing",
                f"{article(size)} {shape}",
                f"{article(size)} {colour} thing",
            }
        return found

    return sorted(names(scene) - names(other))
