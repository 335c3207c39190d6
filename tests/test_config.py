"""Configs survive JSON, refuse what they do not know, and take typed overrides."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumoomni.config import (
    WITHOUT_EFFECT,
    canonical_json,
    config_hash,
    from_dict,
    meaning,
    override,
    to_dict,
)
from lumoomni.errors import InputError
from lumoomni.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ("a",)
    pair: tuple[int, float] = (1, 2.0)


@dataclass(frozen=True, kw_only=True)
class Outer:
    steps: int
    inner: Inner = field(default_factory=Inner)
    mode: Literal["linear", "cosine"] = "linear"
    path: Path | None = None
    on: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


outers = st.builds(
    Outer,
    steps=st.integers(1, 10**9),
    inner=st.builds(
        Inner,
        rate=st.floats(allow_nan=False, allow_infinity=False),
        names=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    ),
    mode=st.sampled_from(["linear", "cosine"]),
    path=st.one_of(st.none(), st.just(Path("a/b"))),
    on=st.booleans(),
)


@given(outers)
def test_json_round_trip_keeps_value_and_hash(config: Outer) -> None:
    back = from_dict(Outer, to_dict(config))
    assert back == config
    assert config_hash(back) == config_hash(config)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_can_be_built_again_from_its_json(name: str) -> None:
    recipe = RECIPES[name]()
    again = RECIPES[name]().with_settings(recipe.to_dict())
    assert [s.config for s in again.stages] == [s.config for s in recipe.stages]


@dataclass(frozen=True, kw_only=True)
class Crew:
    workers: int = field(default=1, metadata=WITHOUT_EFFECT)
    size: int = 8


@dataclass(frozen=True, kw_only=True)
class Work:
    crews: tuple[Crew, ...] = (Crew(),)


def test_what_has_no_effect_is_kept_and_names_nothing() -> None:
    one, many = Work(), Work(crews=(Crew(workers=4),))
    assert config_hash(one) == config_hash(many) != config_hash(Work(crews=(Crew(size=9),)))
    assert meaning(many) == {"crews": [{"size": 8}]} == meaning(meaning(many))
    assert to_dict(many) == {"crews": [{"workers": 4, "size": 8}]}
    assert from_dict(Work, to_dict(many)) == many and from_dict(Work, meaning(many)) == one
    # What is not marked is in the hash as it always was.
    assert meaning(Outer(steps=2)) == to_dict(Outer(steps=2))


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'stepz'.*did you mean steps"):
        from_dict(Outer, {"stepz": 3})


def test_wrong_type_is_refused() -> None:
    with pytest.raises(InputError, match="steps must be int"):
        from_dict(Outer, {"steps": "3"})
    with pytest.raises(InputError, match="on must be bool"):
        from_dict(Outer, {"steps": 3, "on": 1})


def test_overrides_are_typed() -> None:
    changed = override(
        Outer(steps=1),
        ["steps=7", "inner.rate=3e-4", "inner.names=x,y", "mode=cosine", "on=true", "path=/d"],
    )
    assert changed == Outer(
        steps=7,
        inner=Inner(rate=3e-4, names=("x", "y")),
        mode="cosine",
        on=True,
        path=Path("/d"),
    )
    assert override(changed, ["path=none"]).path is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("inner.rat=1", "did you mean rate"),
        ("steps=many", "must be int"),
        ("mode=square", "one of linear, cosine"),
        ("on=yes", "true or false"),
        ("steps=0", "at least 1"),
        ("steps", "path.to.setting=value"),
        ("inner=3", "set a field below"),
        ("inner.pair=1", "takes 2 values"),
    ],
)
def test_bad_overrides_say_why(change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        override(Outer(steps=1), [change])


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


@dataclass(frozen=True, kw_only=True)
class Experts:
    count: int
    active: int
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.active > self.count:
            raise ValueError(f"{self.active} of {self.count} experts cannot be active")


@dataclass(frozen=True, kw_only=True)
class Holder:
    experts: Experts | None = None


@dataclass(frozen=True, kw_only=True)
class Nest:
    holder: Holder = field(default_factory=Holder)
    rate: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Pair:
    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")


def test_settings_that_need_each_other_change_together() -> None:
    assert override(Pair(), ["low=5", "high=9"]) == Pair(low=5, high=9)
    with pytest.raises(InputError, match="low=5: low 5 is not below high 1"):
        override(Pair(), ["low=5"])


def test_what_is_none_is_made_of_what_is_given() -> None:
    """In any order, all at once; `none` takes it away again."""
    given = ["holder.experts.active=2", "holder.experts.count=4"]
    made = override(Nest(), given)
    assert made.holder.experts == Experts(count=4, active=2)
    assert override(made, ["holder.experts.share=0.25"]).holder.experts == replace(
        Experts(count=4, active=2), share=0.25
    )
    assert override(made, ["holder.experts=none"]) == Nest()
    with pytest.raises(InputError, match="experts is none yet and needs count too"):
        override(Nest(), given[:1])
    with pytest.raises(InputError, match=r"holder.experts.cuont.*did you mean count"):
        override(Nest(), ["holder.experts.cuont=4"])
    with pytest.raises(InputError, match="5 of 4 experts cannot be active"):
        override(Nest(), ["holder.experts.active=5", "holder.experts.count=4"])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_are_finite(value: str) -> None:
    with pytest.raises(InputError, match="rate must be a finite number"):
        override(Nest(), [f"rate={value}"])
