"""What may change a code: training mode, shortcuts, threads; none of it reaches a codec."""

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from lumoomni.codecs.exact import _settings, each, exactly


@pytest.fixture(autouse=True)
def threads_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def found() -> list[object]:
    return [getattr(owner, name) for owner, name, _ in _settings()]


def wanted() -> list[object]:
    return [value for _, _, value in _settings()]


def test_settings_are_exact_inside_and_as_before_afterwards() -> None:
    module, before = nn.Linear(2, 2).eval(), found()
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cudnn.benchmark = True
        loose = found()
        assert loose != wanted()
        torch.set_num_threads(2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with exactly(module, "codec"):
                assert found() == wanted() and torch.get_num_threads() == 1
                assert module(torch.ones(1, 2)).dtype == torch.float32
                assert not module(torch.ones(1, 2)).requires_grad
            assert module(torch.ones(1, 2)).dtype == torch.bfloat16
        assert found() == loose and torch.get_num_threads() == 2
        with pytest.raises(KeyError), exactly(module, "codec"):
            raise KeyError
        assert found() == loose
    finally:
        for (owner, name, _), value in zip(_settings(), before, strict=True):
            setattr(owner, name, value)


def test_a_thread_that_leaves_does_not_loosen_one_that_stays() -> None:
    module, before = nn.Linear(2, 2).eval(), found()
    inside, leave, seen = threading.Event(), threading.Event(), []

    def stay() -> None:
        with exactly(module, "codec"):
            inside.set()
            leave.wait(10)
            seen.append(found())

    with exactly(module, "codec"):
        thread = threading.Thread(target=stay)
        thread.start()
        assert inside.wait(10)
    leave.set()
    thread.join()
    assert seen == [wanted()] and found() == before


def test_training_mode_is_refused_wherever_it_hides() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    with exactly(module, "codec"):
        pass
    module[1].train()
    with pytest.raises(ValueError, match=r"x is in training mode \(1\)"), exactly(module, "x"):
        raise AssertionError("it ran")


def test_many_at_a_time_come_back_in_order() -> None:
    torch.set_num_threads(2)
    both, names = threading.Barrier(2), set()

    def code(value: int) -> int:
        both.wait(10)  # one at a time would wait in vain
        names.add(threading.current_thread().name)
        return value * value

    assert each(code, list(range(8)), nn.Linear(1, 1)) == [i * i for i in range(8)]
    assert len(names) == 2
    torch.set_num_threads(1)
    names.clear()
    assert each(lambda v: names.add(threading.current_thread().name), [1, 2], nn.Linear(1, 1))
    assert names == {threading.current_thread().name}
