"""Conversations that say `<image>` where a picture stands: the turns, and the places of the marks.

Knows: LLaVA's turns, and messages whose content is parts of text and pictures; their defects.
Does not know: where the pictures are. Costs: nothing but the text.
"""

from dataclasses import dataclass
from typing import Any

from lumoomni.data.rows import turn_of

MARK = "<image>"


@dataclass(frozen=True)
class Talk:
    """Turns of (role, text) without marks; `places` as in `PictureItem`."""

    turns: tuple[tuple[str, str], ...]
    places: tuple[tuple[int, int], ...] = ()


def talk(listed: Any, pictures: int) -> Talk:
    """A conversation about as many pictures. Raises ValueError for each defect.

    A picture that is alone stands at the head of the conversation; of several, each stands where
    its mark stood, without the line feed that parts a mark from the text beside it.
    """
    if not isinstance(listed, list):
        raise ValueError(f"no conversation: {str(listed)[:80]}")
    turns = [(role, _flat(said)) for role, said in map(turn_of, listed)]
    if not turns or not all(isinstance(text, str) for _, text in turns):
        raise ValueError("an empty conversation, or a turn without text")
    marks = sum(text.count(MARK) for role, text in turns if role == "user")
    if marks != pictures:
        raise ValueError(f"{marks} {MARK} marks for {pictures} image{'s' * (pictures != 1)}")
    if any(MARK in text for role, text in turns if role != "user"):
        raise ValueError(f"an answer says {MARK}")
    spoken = [turn for turn in turns if turn[0] != "system"]
    if not spoken or [role for role, _ in spoken] != ["user", "assistant"] * (len(spoken) // 2):
        raise ValueError(f"turns of {', '.join(role for role, _ in turns)}: not by turns")
    if turns[-1][0] != "assistant":
        raise ValueError(f"the last turn is the {turns[-1][0]}'s, not the assistant's")
    if pictures == 1:
        made = Talk(tuple((role, text.replace(MARK, "").strip()) for role, text in turns))
    else:
        made = _lifted(turns)
    if not all(text for role, text in made.turns if role == "assistant"):
        raise ValueError("empty answer")
    return made


def _lifted(turns: list[tuple[str, str]]) -> Talk:
    """The marks taken out of the text, and where they stood."""
    kept: list[tuple[str, str]] = []
    places: list[tuple[int, int]] = []
    for number, (role, text) in enumerate(turns):
        parts = text.split(MARK)
        last = len(parts) - 1
        for place, part in enumerate(parts):
            part = part.removeprefix("\n") if place else part.lstrip()
            parts[place] = part.removesuffix("\n") if place < last else part.rstrip()
        offset = 0
        for part in parts[:-1]:
            offset += len(part)
            places.append((number, offset))
        kept.append((role, "".join(parts)))
    return Talk(tuple(kept), tuple(places))


def _flat(said: Any) -> Any:
    """Text, from content that may be a list of {"type": "text", "text"} and {"type": "image"}."""
    if not isinstance(said, list):
        return said
    parts = []
    for part in said:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image":
            parts.append(MARK)
        elif kind == "text" and isinstance(part["text"], str):
            parts.append(part["text"])
        else:
            raise ValueError(f"a part that is neither text nor image: {str(part)[:80]}")
    return "".join(parts)
