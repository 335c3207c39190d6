"""Questions about a scene, with answers that follow from it.

Knows scenes, not pixels: the same questions serve pictures and described scenes. A question
costs about 30 microseconds.
"""

import numpy as np

from lumoomni.data.world.asking import QA, Phrasings, accept, word
from lumoomni.data.world.counting import NUMBERS, number_forms
from lumoomni.data.world.language import RELATION_PHRASES, article, caption, noun
from lumoomni.data.world.scene import INVERSE, RELATIONS, Scene, Thing
from lumoomni.data.world.split import COLOURS, SHAPES, SIZES, pairs_of, pick
from lumoomni.errors import InputError

PHRASINGS = {
    "colour": Phrasings(
        (
            "What colour is the {x}?",
            "Which colour is the {x}?",
            "What is the colour of the {x}?",
            "Tell me the colour of the {x}.",
            "What colour does the {x} have?",
        ),
        ("Which colour does the {x} have?", "Tell me what colour the {x} is."),
    ),
    "shape": Phrasings(
        (
            "What shape is the {x}?",
            "Which shape is the {x}?",
            "What is the shape of the {x}?",
            "Tell me the shape of the {x}.",
            "What shape does the {x} have?",
        ),
        ("Which shape does the {x} have?", "Tell me what shape the {x} is."),
    ),
    "size": Phrasings(
        (
            "What size is the {x}?",
            "How big is the {x}?",
            "Is the {x} large or small?",
            "Is the {x} small or large?",
            "What is the size of the {x}?",
            "Tell me the size of the {x}.",
        ),
        ("Which size is the {x}?", "Tell me how big the {x} is."),
    ),
    "count": Phrasings(
        (
            "How many shapes are there?",
            "How many things are there?",
            "How many shapes can you see?",
            "Count the shapes.",
            "What is the number of shapes?",
            "How many shapes are in the picture?",
        ),
        ("How many things can you see?", "Count the things.", "Tell me how many shapes there are."),
    ),
    "count_some": Phrasings(
        (
            "How many {x} are there?",
            "How many {x} can you see?",
            "Count the {x}.",
            "How many {x} are in the picture?",
            "How many {x} do you see?",
            "Can you count the {x}?",
            "Say how many {x} you can see.",
            "The number of {x} is what?",
        ),
        ("What is the number of {x}?", "Tell me how many {x} there are."),
    ),
    "relation": Phrasings(
        (
            "Is the {x} {r} the {y}?",
            "Is it true that the {x} is {r} the {y}?",
            "Can you see the {x} {r} the {y}?",
            "Do you see the {x} {r} the {y}?",
            "Yes or no, is the {x} {r} the {y}?",
            "Look, is the {x} {r} the {y}?",
            "Tell me yes or no: the {x} is {r} the {y}.",
            "The {x} is {r} the {y}, right?",
            "The {x} is {r} the {y}, yes or no?",
            "True or not, the {x} is {r} the {y}?",
        ),
        ("Tell me, is the {x} {r} the {y}?", "The {x} is {r} the {y}, is it true?"),
    ),
    "neighbour": Phrasings(
        (
            "What is {r} the {y}?",
            "Which thing is {r} the {y}?",
            "Tell me what is {r} the {y}.",
            "What can you see {r} the {y}?",
            "What do you see {r} the {y}?",
            "Which one is {r} the {y}?",
            "Tell me which thing is {r} the {y}.",
            "Say what is {r} the {y}.",
            "Look {r} the {y}: what is there?",
        ),
        ("Which shape is {r} the {y}?", "Tell me what you see {r} the {y}."),
    ),
    "where": Phrasings(
        ("Where is the {x}?", "Where can you see the {x}?", "Tell me where the {x} is."),
        ("Can you tell me where the {x} is?", "Where do you see the {x}?"),
    ),
    "place": Phrasings(
        (
            "What is {r}?",
            "Which thing is {r}?",
            "Tell me what is {r}.",
            "What can you see {r}?",
            "Which one is {r}?",
            "Which thing do you see {r}?",
            "Tell me which thing is {r}.",
            "Say what is {r}.",
            "Look {r}: what is there?",
        ),
        ("Which shape is {r}?", "What do you see {r}?"),
    ),
    "exists": Phrasings(
        (
            "Is there {x}?",
            "Can you see {x}?",
            "Is there {x} in the picture?",
            "Do you see {x}?",
            "Do you see {x} in the picture?",
            "Yes or no, is there {x}?",
            "Look, is there {x}?",
            "Is it true that there is {x}?",
            "There is {x}, right?",
        ),
        ("Can you see {x} in the picture?", "Tell me, is there {x}?"),
    ),
    "describe": Phrasings(
        (
            "Describe the picture.",
            "What do you see?",
            "What is in the picture?",
            "What can you see?",
            "Tell me what you see.",
            "Describe what you see.",
        ),
        ("What do you see in the picture?", "Tell me what is in the picture."),
    ),
}
VISUAL_KINDS = tuple(kind for kind in PHRASINGS if kind != "describe")
# By how many things there are: the kinds that ask where things stand.
PLACE_KINDS: dict[int, tuple[str, ...]] = {
    1: (),
    2: ("where", "neighbour", "relation"),
    3: ("place", "relation"),
}
PLACES = ("on the left", "in the middle", "on the right")


def visual_question(scene: Scene, generator: np.random.Generator, kind: str | None = None) -> QA:
    """A question that the scene answers; every kind that fits is equally likely.

    Raises InputError for a kind that is unknown or does not fit the scene.
    """
    builders = {
        "colour": _attribute,
        "shape": _attribute,
        "size": _attribute,
        "count": _count,
        "count_some": _count_some,
        "relation": _relation,
        "neighbour": _neighbour,
        "where": _where,
        "place": _place,
        "exists": _exists,
    }
    fitting = kinds_for(scene)
    if kind is None:
        kind = pick(generator, fitting)
    if kind not in fitting:
        raise InputError(f"a question of kind {kind!r} does not fit: use one of {fitting}")
    return builders[kind](scene, generator, kind)


def kinds_for(scene: Scene) -> tuple[str, ...]:
    """The kinds of question that this scene has an unambiguous answer to."""
    fitting = [
        kind
        for kind in ("colour", "shape", "size")
        if any(handles(scene, thing, kind) for thing in scene.things)
    ]
    fitting += ["count", "count_some", "exists"]
    if len(scene.things) == 2:
        fitting += ["relation", "neighbour", "where"]
    if len(scene.things) == 3:
        fitting += ["relation", "place"]
    return tuple(fitting)


def description(scene: Scene, generator: np.random.Generator) -> QA:
    """The request to describe a scene, answered by its canonical caption."""
    asked = word(PHRASINGS["describe"], scene.split, generator)
    answer = caption(scene)
    others: tuple[str, ...] = ()
    if scene.relation is not None:
        first, second = (noun(thing) for thing in scene.things)
        others = (f"{second} {RELATION_PHRASES[INVERSE[scene.relation]]} {first}",)
    return QA(asked.text, answer, "describe", accept(answer, *others), asked.held_out)


def handles(scene: Scene, thing: Thing, hidden: str = "") -> tuple[str, ...]:
    """Names that fit this thing alone and do not give the hidden attribute away."""
    colour, shape, size = thing.colour, thing.shape, thing.size
    names = (
        (shape, ("shape",)),
        (f"{colour} {shape}", ("colour", "shape")),
        (f"{colour} thing", ("colour",)),
        (f"{colour} one", ("colour",)),
        (f"{size} {shape}", ("size", "shape")),
        (f"{size} {colour} thing", ("size", "colour")),
    )
    # In which attributes each other thing agrees; a name fits it too if it tells only of those.
    shared = [
        {
            part
            for part, same in (
                ("colour", other.colour == colour),
                ("shape", other.shape == shape),
                ("size", other.size == size),
            )
            if same
        }
        for other in scene.things
        if other is not thing
    ]
    return tuple(
        name
        for name, parts in names
        if hidden not in parts and not any(same.issuperset(parts) for same in shared)
    )


def _name(scene: Scene, thing: Thing, generator: np.random.Generator) -> str:
    """One of the names that fit this thing alone."""
    return pick(generator, handles(scene, thing))


def _attribute(scene: Scene, generator: np.random.Generator, kind: str) -> QA:
    """Colour, shape or size of one thing."""
    thing = pick(generator, [t for t in scene.things if handles(scene, t, kind)])
    name = pick(generator, handles(scene, thing, kind))
    asked = word(PHRASINGS[kind], scene.split, generator, x=name)
    if kind == "colour":
        accepted = accept(thing.colour, f"it is {thing.colour}", f"the {name} is {thing.colour}")
    elif kind == "shape":
        accepted = accept(thing.shape, f"a {thing.shape}", f"it is a {thing.shape}")
    else:
        other = {"small": "little", "large": "big"}[thing.size]
        accepted = accept(thing.size, other, f"it is {thing.size}", f"the {name} is {thing.size}")
    return QA(asked.text, accepted[0], kind, accepted, asked.held_out)


def _count(scene: Scene, generator: np.random.Generator, kind: str) -> QA:
    """How many things there are."""
    asked = word(PHRASINGS[kind], scene.split, generator)
    accepted = number_forms(len(scene.things))
    return QA(asked.text, accepted[0], kind, accepted, asked.held_out)


def _count_some(scene: Scene, generator: np.random.Generator, kind: str) -> QA:
    """How many things have a colour, a shape or a size; a third of the answers are zero."""
    thing = pick(generator, scene.things)
    part = pick(generator, ("colour", "shape", "size"))
    here = {"colour": thing.colour, "shape": thing.shape, "size": thing.size}[part]
    if generator.random() < 0.4:
        here = pick(generator, {"colour": COLOURS, "shape": SHAPES, "size": SIZES}[part])
    name = f"{here}s" if part == "shape" else f"{here} {pick(generator, ('things', 'shapes'))}"
    asked = word(PHRASINGS[kind], scene.split, generator, x=name)
    accepted = number_forms(sum(here in (t.colour, t.shape, t.size) for t in scene.things))
    return QA(asked.text, accepted[0], kind, accepted, asked.held_out)


def _relation(scene: Scene, generator: np.random.Generator, kind: str) -> QA:
    """Whether one thing is above, below, left of or right of another; half are true."""
    order = generator.permutation(len(scene.things))[:2]
    x, y = (scene.things[int(i)] for i in order)
    if scene.relation is None:
        # Only left and right are unmistakable among three things.
        truth, options = ("left of" if order[0] < order[1] else "right of"), RELATIONS[2:]
    else:
        truth = scene.relation if order[0] == 0 else INVERSE[scene.relation]
        options = RELATIONS
    right = bool(generator.random() < 0.5)
    relation = truth if right else pick(generator, [r for r in options if r != truth])
    asked = word(
        PHRASINGS[kind],
        scene.split,
        generator,
        x=_name(scene, x, generator),
        y=_name(scene, y, generator),
        r=_spoken(relation, generator),
    )
    answer = "yes" if right else "no"
    return QA(asked.text, answer, kind, accept(answer), asked.held_out)


def _spoken(relation: str, generator: np.random.Generator) -> str:
    """A relation as people say it: left and right in two ways."""
    return relation if generator.random() < 0.3 else RELATION_PHRASES[relation]


def names_of(thing: Thing, question: str) -> tuple[str, ...]:
    """Answers that name a thing, the fullest first; who asks which shape may be told just that."""
    full, short = noun(thing), f"{article(thing.colour)} {thing.shape}"
    bare = (full.removeprefix("a "), f"{thing.colour} {thing.shape}")
    just = (thing.shape, f"a {thing.shape}") if question.lower().startswith("which shape") else ()
    return accept(full, *bare, f"the {bare[0]}", f"the {bare[1]}", short, *just)


def _neighbour(scene: Scene, generator: np.random.Generator, kind: str) -> QA:
    """What is above (below, ...) one of two things."""
    truth = scene.relation or ""
    x, y = scene.things
    if generator.random() < 0.5:
        x, y, truth = y, x, INVERSE[truth]
    asked = word(
        PHRASINGS[kind],
        scene.split,
        generator,
        y=_name(scene, y, generator),
        r=_spoken(truth, generator),
    )
    accepted = names_of(x, asked.text)
    return QA(asked.text, accepted[0], kind, accepted, asked.held_out)


def _where(scene: Scene, generator: np.random.Generator, kind: str) -> QA:
    """Where one of two things is, seen from the other."""
    truth = scene.relation or ""
    x, y = scene.things
    if generator.random() < 0.5:
        x, y, truth = y, x, INVERSE[truth]
    asked = word(PHRASINGS[kind], scene.split, generator, x=_name(scene, x, generator))
    endings = (f"the {y.colour} {y.shape}", f"the {y.size} {y.colour} {y.shape}")
    phrases = (RELATION_PHRASES[truth], truth, f"it is {RELATION_PHRASES[truth]}")
    accepted = accept(*(f"{phrase} {ending}" for ending in endings for phrase in phrases))
    return QA(asked.text, accepted[0], kind, accepted, asked.held_out)


def _place(scene: Scene, generator: np.random.Generator, kind: str) -> QA:
    """What is on the left, in the middle or on the right of three things."""
    i = int(generator.integers(3))
    asked = word(PHRASINGS[kind], scene.split, generator, r=PLACES[i])
    accepted = names_of(scene.things[i], asked.text)
    return QA(asked.text, accepted[0], kind, accepted, asked.held_out)


def _exists(scene: Scene, generator: np.random.Generator, kind: str) -> QA:
    """Whether a thing is there; half are, and the others differ from one of them in one word."""
    thing = pick(generator, scene.things)
    right = bool(generator.random() < 0.5)
    colour, shape = thing.pair
    if not right:
        here = {t.pair for t in scene.things}
        near = [
            pair
            for pair in pairs_of(scene.split)
            if pair not in here and (pair[0] == colour) != (pair[1] == shape)
        ]
        colour, shape = pick(generator, near)
    asked = word(PHRASINGS[kind], scene.split, generator, x=f"{article(colour)} {shape}")
    answer = "yes" if right else "no"
    return QA(asked.text, answer, kind, accept(answer), asked.held_out)


def question_texts() -> tuple[str, ...]:
    """Texts that together hold every word of the questions and their answers."""
    templates = tuple(t for phrasings in PHRASINGS.values() for t in phrasings.all)
    plurals = tuple(f"{shape}s" for shape in SHAPES)
    return (*templates, *PLACES, *plurals, *NUMBERS[:4], "things shapes thing one yes no the")
