"""A small token space of text, pictures of four codes, and sound of two codebooks."""

from lumoomni.codecs.facts import CodecFacts
from lumoomni.uti.space import new_space

IMAGE = CodecFacts(kind="image", name="vq", weights="a", codebooks=1, codebook_size=16, tokens=4)
AUDIO = CodecFacts(
    kind="audio",
    name="rvq",
    weights="b",
    codebooks=2,
    codebook_size=8,
    frame_rate=25.0,
    sample_rate=16000,
)
SPACE = new_space(100, "t", (IMAGE, AUDIO))
