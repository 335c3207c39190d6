"""Keeping the Thinker's states on text while it learns from media."""

import copy

import torch

from lumoomni.data.conversation import IGNORE, Batch
from lumoomni.ids import IMAGE_PATCH
from lumoomni.model.attention import AttentionSpec
from lumoomni.model.omni import OmniModel
from lumoomni.model.thinker import Thinker
from lumoomni.train.answers import InstructTask
from lumoomni.train.hold import drift
from tests.tiny import modules, text_codec


def batch(ids: torch.Tensor, lengths: list[int]) -> Batch:
    labels = torch.full_like(ids, IGNORE)
    return Batch(
        ids=ids,
        labels=labels,
        lengths=torch.tensor(lengths),
        pixels=None,
        mels=None,
        mel_lengths=None,
    )


def states(thinker: Thinker, given: Batch) -> torch.Tensor:
    embeds = thinker.embed(given.ids.clamp(min=0))
    return thinker(embeds, attention=AttentionSpec(lengths=given.lengths)).hidden


def test_only_rows_of_text_alone_are_held_and_only_their_real_tokens() -> None:
    before = modules(text_codec())["thinker"].eval()
    assert isinstance(before, Thinker)
    after = copy.deepcopy(before)
    torch.manual_seed(1)
    ids = torch.randint(0, 200, (3, 6))
    ids[1, 2] = IMAGE_PATCH
    given = batch(ids, [6, 6, 4])
    hidden = states(after, given)
    assert float(drift(before, hidden, given.ids, given.lengths).detach()) < 1e-10
    changed = hidden.detach().clone()
    changed[1] += 5.0  # a row with a picture
    changed[2, 4:] += 5.0  # padding
    assert float(drift(before, changed, given.ids, given.lengths)) < 1e-10
    changed[2, 3] += 5.0
    assert float(drift(before, changed, given.ids, given.lengths)) > 1e-2
    padded = given.ids.clone()
    padded[2, 4:] = before.config.vocab_size + 3  # padding of another block is no other word
    assert float(drift(before, changed, padded, given.lengths)) > 1e-2
    padded[2, 1] = before.config.vocab_size + 3  # but a row with a code is not text alone
    assert float(drift(before, changed, padded, given.lengths)) < 1e-10
    pictures = batch(ids[1:2], [6])
    assert float(drift(before, hidden[1:2].detach(), pictures.ids, pictures.lengths)) == 0.0


def test_its_gradient_leads_back() -> None:
    before = modules(text_codec())["thinker"].eval()
    assert isinstance(before, Thinker)
    after = copy.deepcopy(before)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in after.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    given = batch(torch.randint(0, 200, (4, 6)), [6, 5, 4, 6])
    optimiser = torch.optim.Adam(after.parameters(), lr=2e-3)
    sizes = []
    for _ in range(40):
        away = drift(before, states(after, given), given.ids, given.lengths)
        optimiser.zero_grad()
        away.backward()
        optimiser.step()
        sizes.append(float(away.detach()))
    assert sizes[-1] < 0.3 * sizes[0]
    assert all(parameter.grad is None for parameter in before.parameters())


def test_the_task_adds_the_drift_only_with_a_weight() -> None:
    parts = modules(text_codec())
    names = ("vision", "image_connector", "audio", "audio_connector")
    model = OmniModel(parts["thinker"], **{name: parts[name] for name in names})  # type: ignore[arg-type]
    tasks = [InstructTask(model, None, weight) for weight in (0.0, 2.0)]  # type: ignore[arg-type]
    torch.manual_seed(1)
    given = batch(torch.randint(0, 200, (3, 6)), [6, 6, 6])
    given.labels[:, 3:] = given.ids[:, 3:]
    with torch.no_grad():
        first, second = (float(task.loss(given).total) for task in tasks)
        assert abs(first - second) < 1e-4
        for parameter in model.thinker.blocks.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        away, held = (task.loss(given) for task in tasks)
    assert not away.parts
    assert abs(float(held.total - away.total) - 2.0 * held.parts["held"]) < 1e-3
    assert held.parts["held"] > 0.1
