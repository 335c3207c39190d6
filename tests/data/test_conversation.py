"""Conversations with media become sequences and batches without losing count."""

import numpy as np
import pytest
import torch

from lumoomni.data.conversation import Layout, Turn, collate, pad_mels
from lumoomni.data.grouping import LengthGroups
from lumoomni.data.mixture import TASKS, InstructData, InstructMixture
from lumoomni.ids import AUDIO_FRAME, IGNORE, IMAGE_PATCH
from lumoomni.model.audio import feature_count
from lumoomni.shapes import POSITIONS, round_up
from tests.tiny import MEL, text_codec

LAYOUT = Layout(text_codec=text_codec(), template="compact", mel=MEL, image_positions=4)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_counts_its_media_and_supervises_its_answer(task: str) -> None:
    data = InstructData(InstructMixture(), 0, 32)
    for index in range(8):
        example = data.item("train", index, task)
        made = LAYOUT.encode(example.turns)
        ids, labels = made.sequence.ids, made.sequence.labels
        assert np.count_nonzero(ids == IMAGE_PATCH) == 4 * len(made.pixels)
        frames = sum(feature_count(len(mel)) for mel in made.mels)
        assert np.count_nonzero(ids == AUDIO_FRAME) == frames
        learned = [int(x) for x in labels[labels != IGNORE]]
        answers = [t.text for t in example.turns if t.role == "assistant"]
        codec = LAYOUT.text_codec
        wanted = [i for a in answers for i in (*codec.encode(a), codec.special("<|im_end|>"))]
        assert learned == wanted
        assert example.turns[-1].text and example.accepted


def test_items_are_pure_functions_of_their_index() -> None:
    one, two = (InstructData(InstructMixture(), 3, 32) for _ in range(2))
    for index in (5, 1, 9):
        a, b = one.item("train", index), two.item("train", index)
        assert [t.text for t in a.turns] == [t.text for t in b.turns]
        for x, y in zip(a.turns[0].sounds, b.turns[0].sounds, strict=True):
            assert np.array_equal(x, y)


def test_a_prompt_ends_where_the_answer_begins() -> None:
    whole = LAYOUT.encode((Turn(role="user", text="a?"), Turn(role="assistant", text="red")))
    opened = LAYOUT.encode((Turn(role="user", text="a?"),), open_answer=True)
    count = len(opened)
    assert whole.sequence.ids[:count].tolist() == opened.sequence.ids.tolist()
    assert (whole.sequence.labels[:count] == IGNORE).all()
    assert (whole.sequence.labels[count:] != IGNORE).all()


def test_batches_pad_on_the_right() -> None:
    short = LAYOUT.encode((Turn(role="user", text="a"),))
    long = LAYOUT.encode((Turn(role="user", text="a large red circle"),))
    batch = collate([short, long])
    assert batch.lengths.tolist() == [len(short), len(long)]
    assert (batch.labels[0, len(short) :] == IGNORE).all()
    assert batch.pixels is None and batch.mels is None
    assert batch.ids.shape[1] == round_up(len(long), POSITIONS)
    with pytest.raises(ValueError, match="no conversations"):
        collate([])


def test_log_mels_of_many_lengths_have_few_shapes() -> None:
    shapes = set()
    for frames in range(1, 200):
        mels, lengths = pad_mels([torch.ones(frames, 5), torch.ones(3, 5)])
        assert lengths.tolist() == [frames, 3] and mels.sum() == 5 * (frames + 3)
        shapes.add(mels.shape)
    assert len(shapes) == 4


def test_groups_hold_every_sample_once_and_are_pure() -> None:
    groups = LengthGroups(lambda i: "x" * (i % 7 + 1) + str(i), batch_size=4, group=3)
    seen = [sample for index in range(6) for sample in groups.batch(index)]
    assert len(set(seen)) == 24
    again = LengthGroups(lambda i: "x" * (i % 7 + 1) + str(i), batch_size=4, group=3)
    assert again.batch(4) == groups.batch(4)
    lengths = [len(sample) for sample in groups.batch(0)]
    assert lengths == sorted(lengths)


def test_two_parts_are_as_long_and_echoes_meet_other_company() -> None:
    made: list[int] = []

    def make(i: int) -> str:
        made.append(i)
        return "x" * (20 + (i * 7) % 61) + str(i)

    groups = LengthGroups(make, batch_size=8, group=4, parts=2, echo=2)
    batches = [groups.batch(index) for index in range(16)]
    # Two turns of four updates of two parts: 64 samples, each made once and met twice.
    assert sorted(made) == list(range(64))
    turns = [[s for batch in batches[first : first + 8] for s in batch] for first in (0, 8)]
    assert sorted(turns[0]) == sorted(turns[1]) and len(set(turns[0])) == 64
    again = {frozenset(b) for b in batches[:8]} & {frozenset(b) for b in batches[8:]}
    assert len(again) <= 2
    for one, other in zip(batches[::2], batches[1::2], strict=True):
        assert abs(max(map(len, one)) - max(map(len, other))) <= 25
    # A learner of every other batch makes only its own samples.
    made.clear()
    own = LengthGroups(make, batch_size=8, group=4, parts=2, echo=2)
    assert [own.batch(i) for i in range(1, 16, 2)] == batches[1::2]
    assert sorted(made) == list(range(32, 64))


@pytest.mark.parametrize(
    ("template", "thought"), [("chatml", ""), ("qwen3", "<think>\n\n</think>\n\n")]
)
def test_turns_are_written_as_qwen3_does_with_thinking_off(template: str, thought: str) -> None:
    """Its published template puts an empty thought before the last answer, and before a new one."""
    codec = text_codec()
    layout = Layout(text_codec=codec, template=template, mel=MEL)
    turns = (
        Turn(role="system", text="S"),
        Turn(role="user", text="A"),
        Turn(role="assistant", text="B"),
        Turn(role="user", text="C"),
        Turn(role="assistant", text="D"),
    )
    begun = (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n"
        "<|im_start|>assistant\nB<|im_end|>\n<|im_start|>user\nC<|im_end|>\n"
        f"<|im_start|>assistant\n{thought}"
    )
    made = layout.encode(turns).sequence

    def written(ids: list[int]) -> str:
        return codec._tokenizer.decode(ids, skip_special_tokens=False)

    assert written(made.ids.tolist()) == begun + "D<|im_end|>\n"
    opened = layout.encode(turns[:-1], open_answer=True).sequence
    assert written(opened.ids.tolist()) == begun
    learned = [i for i in made.labels.tolist() if i >= 0]
    assert written(learned) == "B<|im_end|>D<|im_end|>"
