"""What solvers ask of a GPU that is not the current one, and of recorded CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cortado.netdef import Net
from cortado.netdef.compilation import CACHE_VARIABLE
from cortado.netdef.execution import Execution
from cortado.solvers import restore
from cortado.solvers.hooks.display import Display
from cortado.solvers.hooks.finite import _fetched
from cortado.tools.output.stopwatch import _timed
from support.fake_cuda import DEVICE, Log, cuda  # noqa: F401
from support.fake_device import DEVICE as FAKE
from support.fake_device import Answers
from support.runs import small_solver


def test_an_answer_is_there_when_the_stream_of_its_device_has_copied_it(cuda: Log) -> None:  # noqa: F811
    answer = _fetched(torch.ones((), dtype=torch.bool, device=DEVICE))
    assert cuda == ["event in current of cuda:1"]
    with Answers(True):
        assert answer()
    assert cuda[1:] == ["host waits for event"]


def test_work_is_timed_in_the_stream_of_its_device(
    cuda: Log,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("support.fake_cuda.Event.elapsed_time", lambda *_: 7.0, raising=False)
    assert _timed(lambda: cuda.append("work"), DEVICE) == (None, 7.0)
    here = "event in current of cuda:1"
    assert cuda == [here, "work", here, "host waits for event"]


def test_the_generator_is_that_of_the_solvers_device(cuda: Log) -> None:  # noqa: F811
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    with unset_fake_temporarily():
        states = restore._generators(DEVICE)
        restore._set_generators(states, DEVICE)
        restore._set_generators(states, torch.device("cpu"))
    assert states.keys() == {"cpu", "cuda"}
    assert cuda == ["generator of cuda:1", "generator of cuda:1 is set"]


def test_losses_of_a_snapshot_are_averaged_with_those_of_a_device() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    display = Display(1, average_loss=3)
    with FakeTensorMode(), Answers(1):
        display.load_state_dict({"losses": [1.0, 2.0]})
        display.losses.append(torch.ones((), device=FAKE))
        assert display.smoothed_loss() == 1


class Recorded:
    """A compiled function whose results are where the last ones were, as a CUDA graph's are."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.blobs: dict[str, Tensor] = {}
        self.loss = torch.zeros(())

    def __call__(self, *arguments: Any) -> Any:
        blobs, loss = self.function(*arguments)
        if not self.blobs:
            self.blobs, self.loss = {k: v.clone() for k, v in blobs.items()}, loss.clone()
            return self.blobs, self.loss
        for name, blob in blobs.items():
            self.blobs[name].copy_(blob)
        self.loss.copy_(loss)
        return self.blobs, self.loss


@torch.no_grad()
def test_results_of_recorded_graphs_are_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests sum the outputs of batches, and display averages losses of iterations."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch, "compile", lambda function, mode: Recorded(function))
    with small_solver(tmp_path) as solver:
        net = Net(solver.net.to_message(), execution=Execution(compile=True, cuda_graphs=True))
    (first, loss), (second, _) = (net.run(net.next_batch()) for _ in range(2))
    assert loss == first["loss"]
    assert first["loss"] != second["loss"]


def test_gradients_of_recorded_graphs_are_added_in_memory_of_our_own(tmp_path: Path) -> None:
    with small_solver(tmp_path, "iter_size: 2") as expected:
        expected.forward_backward()
    with small_solver(tmp_path, "iter_size: 2") as solver:
        solver.execution = replace(solver.execution, cuda_graphs=True)
        parameter = solver.net.params[0].tensor
        left: list[Tensor] = []
        parameter.register_post_accumulate_grad_hook(lambda each: left.append(each.grad))
        take = solver.net.next_batch

        def next_batch() -> dict[str, Tensor]:
            for gradient in left:  # the graph runs again
                gradient.fill_(torch.nan)
            return take()

        solver.net.next_batch = next_batch  # type: ignore[method-assign]
        solver.forward_backward()
    assert len(left) == 2
    for one, other in zip(solver.updater.gradients(), expected.updater.gradients(), strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def products() -> Iterator[tuple[Any, ...]]:
    """What says whether products may round; as it was, afterwards."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    yield backends
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


@pytest.mark.parametrize(("precision", "rounds"), [("FP32", False), ("TF32", True)])
def test_products_round_only_where_they_may(
    precision: str, rounds: bool, products: tuple[Any, ...]
) -> None:
    """Torch's own default lets cuDNN's convolutions round to TF32."""
    for backend in products:
        backend.allow_tf32 = not rounds
    with Execution(precision=precision).context(torch.device("cuda")):
        assert [backend.allow_tf32 for backend in products] == [rounds, rounds]
    # Backward comes after it.
    assert [backend.allow_tf32 for backend in products] == [rounds, rounds]
