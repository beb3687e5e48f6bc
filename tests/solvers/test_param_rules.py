"""What param_rule does to the backward pass, and what the log says of it."""

from __future__ import annotations

from pathlib import Path

from cortado.solvers import events
from cortado.tools.output.log import lines
from support.runs import NET, small_solver

TESTED = "test_iter: 1 test_interval: 100 "
FROZEN = NET.replace('top: "h"\n', 'top: "h" param { lr_mult: 0 } param { lr_mult: 0 }\n', 1)


def rule(pattern: str, lr_mult: int) -> str:
    return f'param_rule {{ pattern: "{pattern}" lr_mult: {lr_mult} }} '


def said(folder: Path, text: str, net: str = NET) -> list[list[str]]:
    """The layers that need backward computation as the log has them, one list for each net."""
    heard: list[events.Event] = []
    small_solver(folder, text, net, listeners=[heard.append]).close()
    ending = " needs backward computation."
    return [
        [line.removesuffix(ending) for _, line in lines(event) if line.endswith(ending)]
        for event in heard
        if isinstance(event, events.NetBuilt)
    ]


def test_the_log_knows_frozen_layers(tmp_path: Path) -> None:
    everything = ["loss", "ip2", "act", "drop", "ip1"]
    assert said(tmp_path, TESTED) == [everything, everything]
    frozen = said(tmp_path, TESTED + rule("ip1", 0))
    assert frozen == [["loss", "ip2"], ["loss", "ip2"]]


def test_it_is_what_the_same_multipliers_in_the_net_say(tmp_path: Path) -> None:
    assert FROZEN != NET
    assert said(tmp_path, TESTED, FROZEN) == said(tmp_path, TESTED + rule("ip1", 0))


def test_the_log_knows_layers_that_a_rule_frees(tmp_path: Path) -> None:
    assert said(tmp_path, rule("ip1", 1), FROZEN) == [["loss", "ip2", "act", "drop", "ip1"]]


def test_a_bottom_that_is_cut_off_stays_so_when_a_rule_frees_what_is_before(tmp_path: Path) -> None:
    cut = FROZEN.replace('top: "o"', 'top: "o" propagate_down: false')
    with small_solver(tmp_path, rule("ip1", 1), cut) as solver:
        solver.forward_backward()
        assert solver.net.layer("ip2").detached == {0}
        assert solver.net.layer("ip1").layer.blob(0).grad is None
        assert solver.net.layer("ip2").layer.blob(0).grad.any()
