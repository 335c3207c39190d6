"""What the first stages asked, asked again of a model that has learned more since.

Knows: the questions of `pretrain_text` and the ablation of `align_connector`, and their gates.
Does not know: training. What cannot have changed (towers, codecs, the Talker) is not asked again.
Costs: some hundred answers, and five forwards of as many captions.
"""

from lumoomni.data.conversation import Layout
from lumoomni.data.feeding import shorten
from lumoomni.data.sample import take
from lumoomni.data.sources import open_pictures, open_text
from lumoomni.gates import Check, Metric
from lumoomni.model.omni import OmniModel
from lumoomni.model.thinker import Thinker
from lumoomni.model.vision import VisionTower
from lumoomni.pipeline import StageContext
from lumoomni.stages import align_connector, pretrain_text
from lumoomni.stages.align_connector import AlignConnectorConfig
from lumoomni.stages.picture_training import encode
from lumoomni.stages.pretrain_text import PretrainTextConfig


def text_again(
    config: PretrainTextConfig, thinker: Thinker, layout: Layout, context: StageContext
) -> dict[str, Metric]:
    """Every number of `pretrain_text`."""
    source = open_text(config.data, context.seed)
    return pretrain_text.measure(config, source, layout, thinker, context)[0]


def pictures_again(
    config: AlignConnectorConfig, model: OmniModel, layout: Layout, seed: int
) -> dict[str, Metric]:
    """The ablation of `align_connector`: right, another's, changed and no pictures."""
    assert isinstance(model.vision, VisionTower)
    source = open_pictures(config.data, seed, model.vision.config.image_size)
    items = take(source, "seen", config.eval_items)
    shown = [shorten(encode(layout, item, config.prompt), config.context) for item in items]
    return align_connector.ablation_of(model, items, shown, layout, config, seed).metrics()


def checks(
    text: PretrainTextConfig | None, aligned: AlignConnectorConfig | None
) -> tuple[Check, ...]:
    """The gates of both, but for what only their own training can break."""
    asked = () if text is None else pretrain_text.checks(text)
    seen = () if aligned is None else align_connector.checks(aligned)
    return (*asked, *(one for one in seen if one.metric.startswith("ablation.")))
