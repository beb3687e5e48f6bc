"""The order and the values of what a run reports, held against the lines Caffe printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cortado.proto.files import read_solver
from cortado.solvers import Solver, events
from support.solver_goldens import goldens  # noqa: F401


def flatten(event: events.Event) -> list[list[str]]:
    """An event as the goldens write the lines it stands for; numbers have six digits."""

    def outputs(kind: str, values: tuple[events.Output, ...]) -> list[list[str]]:
        lines = []
        for number, output in enumerate(values):
            weighted = output.loss_weight * output.value
            bracket = f"(* {output.loss_weight:g} = {weighted:g} loss)" * bool(output.loss_weight)
            lines.append([kind, str(number), output.blob, f"{output.value:g}", bracket])
        return lines

    match event:
        case events.TestStarted():
            return [["testing", str(event.iteration), str(event.index)]]
        case events.TestFinished():
            loss = [] if event.loss is None else [["test_loss", f"{event.loss:g}"]]
            return loss + outputs("test_output", event.outputs)
        case events.Displayed():
            loss = ["loss", str(event.iteration), f"{event.loss:g}"]
            return [loss, *outputs("train_output", event.outputs)]
        case events.RateDisplayed():
            return [["lr", str(event.iteration), f"{event.rate:g}"]]
        case events.FinalLoss():
            return [["final_loss", str(event.iteration), f"{event.loss:g}"]]
        case events.TrainingFinished():
            return [["done"], ["done"]]
    return []


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", ["log_sgd_avg5", "log_adam_itersize2_avg3"])
def test_says_what_caffe_printed(name: str, goldens: Path) -> None:  # noqa: F811
    golden = json.loads(Path(f"{name}.json").read_text())
    lines: list[list[str]] = []
    document = read_solver(golden["solver"])
    document.message.snapshot_after_train = False
    with Solver(
        document,
        device="cpu",
        weights=[golden["weights"]],
        listeners=[lambda event: lines.extend(flatten(event))],
    ) as solver:
        outcome = solver.solve()
    assert outcome.iteration == document.message.max_iter
    assert outcome.stopped_by is None
    assert len(lines) == len(golden["events"])
    for found, expected in zip(lines, golden["events"], strict=True):
        for ours, theirs in zip(found, expected, strict=True):
            parts = zip(ours.strip("()").split(), theirs.strip("()").split(), strict=True)
            for a, b in parts:
                if is_number(b):
                    assert float(a) == pytest.approx(float(b), rel=1e-4, abs=1e-6), (
                        found,
                        expected,
                    )
                else:
                    assert a == b, (found, expected)
