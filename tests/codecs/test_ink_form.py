"""Colour and form are told apart: neither moves with the other, and a codec codes them so."""

import pytest
import torch
from torch import Tensor

from lumoomni.codecs.image_vq import ImageCodec, ImageCodecConfig
from lumoomni.codecs.ink_form import InkAndForm, stands_out
from lumoomni.codecs.scalar import ScalarQuantiser, values
from lumoomni.data.world.scene import Scene, Thing, draw, make_scene
from lumoomni.data.world.sketch import sketch
from lumoomni.data.world.split import COLOURS, SHAPES
from lumoomni.media.image import normalise
from lumoomni.train.inks import InkConfig, inks_of, learn_inks


def shown(colour: str, shape: str, size: str = "large") -> Tensor:
    thing = Thing(colour, shape, size, 0.5, 0.5, 0.2)
    return normalise([sketch(Scene((thing,), "train", 0))])


def codec() -> ImageCodec:
    torch.manual_seed(0)
    config = ImageCodecConfig(
        fine_width=8, width=16, code_width=4, levels=(5, 5, 4, 4), codebook_size=400, ink_digits=2
    )
    return ImageCodec(config).eval()


def test_a_colour_is_the_same_in_every_shape_and_a_form_in_every_colour() -> None:
    inks = {shape: stands_out(shown("red", shape))[0][0, 27] for shape in SHAPES}
    for shape in SHAPES:
        assert torch.allclose(inks[shape], inks["circle"], atol=0.02), shape
    covers = {colour: stands_out(shown(colour, "star"))[1] for colour in COLOURS}
    for colour in COLOURS:
        # All but faint pixels of an edge, seen alone in a window's corner.
        off = (covers[colour] - covers["blue"]).abs()
        assert (off > 0.1).float().mean() < 0.002, colour
    other = stands_out(shown("blue", "square"))[1]
    assert ((covers["blue"] - other).abs() > 0.5).float().mean() > 0.02


def test_a_dull_colour_has_the_form_of_a_vivid_one() -> None:
    """Purple is not half as far from grey as blue is: few of its pixels must not count for less."""
    blue, purple = (stands_out(shown(colour, "star", "small"))[1] for colour in ("blue", "purple"))
    assert float((blue - purple).abs().max()) < 0.15
    assert float((blue - purple).square().sum()) < 0.2


def test_where_nothing_stands_out_there_is_the_ground_and_no_form() -> None:
    ground = draw(Scene((), "train", 3))
    ink, cover = stands_out(normalise([ground]))
    assert cover.abs().max() < 0.2
    assert (ink - normalise([ground]).mean((2, 3))).abs().max() < 0.15


def test_codes_have_a_part_for_each() -> None:
    made = codec()
    assert made.config.parts == ((5, 5), (4, 4))

    def parts(colour: str, shape: str) -> Tensor:
        return values(made.encode(shown(colour, shape)), made.config.parts)[0]

    red, blue, square = parts("red", "star"), parts("blue", "star"), parts("red", "square")
    same = (red == blue).float().mean(0)
    assert same[1] > 0.9 and (red[27] == square[27]).tolist()[0]
    assert len(made.encode(torch.full((1, 3, 64, 64), 0.2)).unique()) == 1


def test_what_is_far_away_changes_no_code() -> None:
    """Of either encoder: a code is made of its patch and 4 pixels around it."""
    torch.manual_seed(0)
    for made in (codec(), ImageCodec(ImageCodecConfig(fine_width=8, width=16)).eval()):
        one = torch.zeros(1, 3, 64, 64)
        one[:, :, 30:34, 30:34] = 1.0
        other = one.clone()
        other[:, :, 44:60, 40:52] = -0.9
        apart = made._vectors(one) - made._vectors(other)  # pyright: ignore[reportPrivateUsage]
        changed = (apart.abs().amax(-1) > 1e-5).view(8, 8)
        assert changed[5:8, 4:7].any()
        changed[5:8, 4:7] = False
        assert not changed.any()


def test_digits_of_a_colour_leave_some_for_the_form() -> None:
    with pytest.raises(ValueError, match="ink_digits is 2 of 2 levels"):
        ImageCodecConfig(levels=(5, 4), codebook_size=20, code_width=2, ink_digits=2)
    with pytest.raises(ValueError, match="ink_digits is 1 of 0 levels"):
        ImageCodecConfig(ink_digits=1)


def test_colours_learned_first_leave_little_and_the_same_again() -> None:
    """Also that the best try is kept: more tries never leave more."""
    scenes = [make_scene(0, "train", index) for index in range(60)]
    inks = inks_of(normalise([draw(scene, 64) for scene in scenes]))
    assert len(inks.things) > 200 < len(inks.grounds)
    spread = float((inks.things - inks.things.mean(0)).square().sum(-1).mean())
    left = {}
    for tries in (1, 3, 3):
        made, config = codec(), InkConfig(tries=tries, updates=150, batch=128)
        found = learn_inks(made, inks, config, 0)
        assert left.setdefault(tries, found) == found
        assert isinstance(made.encoder, InkAndForm)
    assert left[3] <= left[1] < 0.25 * spread
    with torch.no_grad():
        bounded = made.quantiser.bound(made.encoder.ink(inks.things))
        digits = ScalarQuantiser(made.config.levels[:2]).codes(bounded)
    assert len(digits.unique()) > 10


def test_inks_need_digits_of_colour_and_things() -> None:
    inks = inks_of(normalise([draw(Scene((), "train", 3))]))
    with pytest.raises(ValueError, match="0 colours of things"):
        learn_inks(codec(), inks, InkConfig(updates=1), 0)
    with pytest.raises(ValueError, match="set ink_digits"):
        learn_inks(ImageCodec(ImageCodecConfig()), inks, InkConfig(updates=1), 0)
    with pytest.raises(ValueError, match="tries must be at least 0"):
        InkConfig(tries=-1)
