"""Everyday small talk and common facts: fixed answers to many ways of asking.

Pure data with one function that draws from it. Each intent has one answer; its held-out
phrasings use words that the other phrasings of this world teach.
"""

from dataclasses import dataclass

import numpy as np

from lumoomni.data.world.asking import QA, Phrasings, accept, word
from lumoomni.data.world.split import pick

NAMES = ("Anna", "Tom", "Ben", "Lucy", "Sam", "Mia", "Leo", "Emma", "Max", "Nina")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Intent:
    """One thing people say, in several ways, and the one reply with its alternatives."""

    asks: Phrasings
    answer: str
    accepted: tuple[str, ...]


# Three lines an intent: ways to say it, a way (+) that training never hears, and the reply (=)
# with what else counts as right.
_TALK = """
Hello!|Hi!|Hello there!|Hi there!|Good day!
  + Hello, good day!
  = Hello! How can I help?
Good morning!|Hello, good morning!|A good morning to you!
  + Hi, good morning!
  = Good morning!
Good evening!|Hello, good evening!|A good evening to you!
  + Hi, good evening!
  = Good evening!
Good night!|Sleep well!|Good night, sleep well!
  + Good night to you!
  = Good night! Sleep well!
Goodbye!|Bye!|Bye bye!|See you later!|See you soon!
  + Goodbye, see you later!
  = Goodbye! See you soon!
How are you?|How are you today?|How do you do?|Are you well?
  + Hello, how are you?
  = I am fine, thank you.
Thank you!|Thanks!|Thank you very much!|Thanks a lot!
  + Thanks very much!
  = You are welcome.
What is your name?|Who are you?|What are you called?|Tell me your name.
  + Please tell me your name.
  = My name is Lumo.
What are you?|Are you a person?|Are you a computer?
  + Are you a person or a computer?
  = I am a small computer program.
Who made you?|Where do you come from?|Who built you?
  + Tell me who made you.
  = I was built on a small computer.
What can you do?|How can you help me?|What do you know?
  + Tell me what you can do.
  = I can see, hear, read and speak.
Can you see?|Do you have eyes?|Can you look at pictures?
  + Can you see pictures?
  = Yes, I can see pictures.
Can you hear?|Can you hear me?|Do you have ears?
  + Hello, can you hear me?
  = Yes, I can hear you.
Can you speak?|Can you talk?|Do you have a voice?
  + Can you talk to me?
  = Yes, I can speak.
Can you draw?|Can you make pictures?|Do you like to draw?
  + Can you draw pictures?
  = Yes, I can draw shapes.
Sorry!|I am sorry.|I am very sorry.
  + Sorry, I am late.
  = No problem.
I am late.|I came too late.|I am too late.
  + I am very late.
  = Better late than never.
I am sad.|I feel sad.|I am not happy.
  + I feel very sad.
  = I hope you feel better soon.
I am happy.|I feel happy.|I feel very well.
  + I am very happy.
  = I am glad to hear that.
I am tired.|I feel tired.|I am very tired.
  + I feel very tired.
  = Take a little rest.
I am hungry.|I feel hungry.|I want to eat.
  + I am very hungry.
  = Have a good meal.
I am thirsty.|I feel thirsty.|I want to drink.
  + I am very thirsty.
  = Have a glass of water.
I am cold.|I feel cold.|I am very cold.
  + I feel very cold.
  = Put on a warm coat.
It is my birthday.|Today is my birthday.|My birthday is today.
  + Hello, it is my birthday.
  = Happy birthday to you!
Please help me.|Can you help me?|I want help.
  + Hello, can you help me?
  = Yes, what can I do?
Are you ready?|Can we start?|Are you there?
  + Hello, are you there?
  = Yes, I am ready.
Well done!|Very good!|That was right!
  + That was very good!
  = Thank you, I am glad.
That is wrong.|That was wrong.|That is not right.
  + That was not right.
  = Sorry, I will try again.
Tell me a joke.|Do you know a joke?|Make me laugh.
  + Please tell me a joke.
  = Six was afraid of seven.
It is raining.|Look, it is raining.|It is raining today.
  + Hello, it is raining.
  = Take a coat with you.
How many days are in a week?|How many days does a week have?|What is the number of days in a week?
  + Tell me how many days are in a week.
  = seven|7|seven days
How many months are in a year?|How many months does a year have?|Count the months of a year.
  + Tell me how many months are in a year.
  = twelve|12|twelve months
How many fingers are on a hand?|How many fingers does a hand have?|Count the fingers of a hand.
  + Tell me how many fingers are on a hand.
  = five|5|five fingers
How many legs does a dog have?|Count the legs of a dog.|What number of legs does a dog have?
  + Tell me the number of legs of a dog.
  = four|4|four legs
How many legs does a bird have?|Count the legs of a bird.|What number of legs does a bird have?
  + Tell me the number of legs of a bird.
  = two|2|two legs
How many eyes does a cat have?|Count the eyes of a cat.|What number of eyes does a cat have?
  + Tell me the number of eyes of a cat.
  = two|2|two eyes
How many sides does a triangle have?|Count the sides of a triangle.|Count the corners of a triangle.
  + Tell me the number of sides of a triangle.
  = three|3|three sides|three corners
How many sides does a square have?|Count the sides of a square.|Count the corners of a square.
  + Tell me the number of sides of a square.
  = four|4|four sides|four corners
Count the sides of a circle.|Count the corners of a circle.|How many sides does a circle have?
  + Tell me the number of corners of a circle.
  = zero|0|none|no corners|no sides
How many points does a star have?|Count the points of a star.|How many corners does a star have?
  + Tell me the number of points of a star.
  = five|5|five points
"""


def _read(table: str) -> tuple[Intent, ...]:
    """The intents of a table like the one above."""
    lines = [line.strip(" +=") for line in table.strip().splitlines()]
    intents = []
    for asks, held_out, replies in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        accepted = tuple(replies.split("|"))
        phrasings = Phrasings(tuple(asks.split("|")), tuple(held_out.split("|")))
        intents.append(Intent(phrasings, accepted[0], accepted))
    return tuple(intents)


INTENTS = _read(_TALK)

THING_COLOURS = {
    "grass": "green",
    "the sky": "blue",
    "snow": "white",
    "the sun": "yellow",
    "coal": "black",
    "a tomato": "red",
    "a banana": "yellow",
    "a carrot": "orange",
    "a plum": "purple",
    "milk": "white",
    "a leaf": "green",
    "the sea": "blue",
    "the night": "black",
    "blood": "red",
}
OPPOSITES = (
    *(("hot", "cold"), ("big", "little"), ("large", "small"), ("up", "down")),
    *(("day", "night"), ("fast", "slow"), ("open", "closed"), ("happy", "sad")),
    *(("old", "young"), ("left", "right"), ("above", "below"), ("yes", "no")),
    *(("black", "white"), ("hard", "soft"), ("first", "last"), ("wet", "dry")),
)
SOUNDS_OF = {
    "dog": ("woof", "bark"),
    "cat": ("meow",),
    "cow": ("moo",),
    "duck": ("quack",),
    "sheep": ("baa",),
    "pig": ("oink",),
    "bird": ("tweet",),
    "lion": ("roar",),
}
FACTS = {
    "thing_colour": Phrasings(
        ("What colour is {x}?", "Which colour is {x}?", "What is the colour of {x}?"),
        ("Tell me the colour of {x}.",),
    ),
    "opposite": Phrasings(
        ("What is the opposite of {x}?", "Tell me the opposite of {x}.", "The opposite of {x}?"),
        ("Do you know the opposite of {x}?",),
    ),
    "animal": Phrasings(
        ("What does a {x} say?", "What sound does a {x} make?", "How does a {x} sound?"),
        ("Tell me the sound of a {x}.",),
    ),
    "after": Phrasings(
        ("What day comes after {x}?", "Which day comes after {x}?", "What day is after {x}?"),
        ("Tell me what day comes after {x}.",),
    ),
    "before": Phrasings(
        ("What day comes before {x}?", "Which day comes before {x}?", "What day is before {x}?"),
        ("Tell me what day comes before {x}.",),
    ),
}


def small_talk(split: str, generator: np.random.Generator) -> QA:
    """One exchange: an intent, or a common fact."""
    if generator.random() < 0.55:
        intent = pick(generator, INTENTS)
        asked = word(intent.asks, split, generator)
        return QA(asked.text, intent.answer, "talk", intent.accepted, asked.held_out)
    kind = pick(generator, tuple(FACTS))
    subject, accepted = fact(kind, generator)
    asked = word(FACTS[kind], split, generator, x=subject)
    return QA(asked.text, accepted[0], kind, accepted, asked.held_out)


def fact(kind: str, generator: np.random.Generator) -> tuple[str, tuple[str, ...]]:
    """What a fact is about, and the answers that are right."""
    if kind == "thing_colour":
        subject = pick(generator, tuple(THING_COLOURS))
        colour = THING_COLOURS[subject]
        return subject, accept(colour, f"{subject} is {colour}", f"it is {colour}")
    if kind == "opposite":
        pair = pick(generator, OPPOSITES)
        i = int(generator.integers(2))
        return pair[i], accept(pair[1 - i])
    if kind == "animal":
        subject = pick(generator, tuple(SOUNDS_OF))
        return subject, SOUNDS_OF[subject]
    i = int(generator.integers(len(DAYS)))
    step = 1 if kind == "after" else -1
    return DAYS[i], accept(DAYS[(i + step) % len(DAYS)])


def talk_texts() -> tuple[str, ...]:
    """Texts that together hold every word of the small talk."""
    lines = [text for i in INTENTS for text in (*i.asks.all, *i.accepted)]
    lines += [text for phrasings in FACTS.values() for text in phrasings.all]
    lines += [*NAMES, *DAYS, *THING_COLOURS, *THING_COLOURS.values(), *SOUNDS_OF]
    lines += [sound for sounds in SOUNDS_OF.values() for sound in sounds]
    lines += [side for pair in OPPOSITES for side in pair]
    return tuple(lines)
