"""Opening sources by name."""

from lumoomni.data.sample import PictureItem, Source, SpeechItem, TextItem
from lumoomni.data.world.source import WorldPictures, WorldSpeech, WorldText


def open_text(spec: str, seed: int) -> Source[TextItem]:
    return WorldText(seed)


def open_speech(spec: str, seed: int) -> Source[SpeechItem]:
    return WorldSpeech(seed, narrator=spec == "world-narrator")


def open_pictures(spec: str, seed: int, pixels: int) -> Source[PictureItem]:
    return WorldPictures(seed, pixels)
