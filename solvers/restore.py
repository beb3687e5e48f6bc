"""What a snapshot's state holds beyond Caffe's fields, and how a solver continues from it."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import torch

from ..netdef import Net
from ..proto.errors import ConfigError, Fault, SnapshotError
from . import checks, diagnosis, policies
from .requirements import SolverDocument, place

if TYPE_CHECKING:
    from .solver import Solver

VERSION = 1


def capture(solver: Solver) -> dict[str, Any]:
    """Everything that a run depends on besides weights, history, iteration and step, as values that
    JSON can hold: data positions, generators, what hooks remember, seed, digest, wall time."""
    return {
        "version": VERSION,
        "seed": solver.seed,
        "seconds": solver.seconds,
        "digest": digest(solver),
        "override": list(solver.parameters.override),
        "sources": [_positions(net) for net in (solver.net, *solver.test_nets)],
        "generators": _generators(solver.device),
        "scaler": None if solver.scaler is None else solver.scaler.state_dict(),
        "hooks": {hook.name: hook.state_dict() for hook in solver.hooks if hook.name},
    }


def release(solver: Solver, state: dict[str, Any], origin: str) -> None:
    """Continue from what :func:`capture` gave."""
    if state.get("version") != VERSION:
        raise SnapshotError(
            f"{origin}: its resume state has version {state.get('version')}, this program reads "
            f"{VERSION}"
        )
    solver.seed = state["seed"]
    solver.earlier_seconds = state["seconds"]
    nets = (solver.net, *solver.test_nets)
    for net, positions in zip(nets, state["sources"], strict=False):
        for step in net.sources:
            step.source.seed(solver.seed)
            if step.name in positions:
                step.source.load_state_dict(positions[step.name])
    _set_generators(state["generators"], solver.device)
    if solver.scaler is not None and state.get("scaler"):
        solver.scaler.load_state_dict(state["scaler"])
    for hook in solver.hooks:
        if hook.name in state["hooks"]:
            hook.load_state_dict(state["hooks"][hook.name])


def _positions(net: Net) -> dict[str, Any]:
    return {step.name: step.source.state_dict() for step in net.sources}


def _generators(device: torch.device) -> dict[str, str]:
    states = diagnosis.generator_states(device)
    return {name: base64.b64encode(s.numpy().tobytes()).decode() for name, s in states.items()}


def _set_generators(states: dict[str, str], device: torch.device) -> None:
    for name, text in states.items():
        state = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
        if name == "cpu":
            torch.set_rng_state(state)
        elif device.type == "cuda":
            torch.cuda.set_rng_state(state, device)


#: Solver fields that do not change what weights an iteration leads to (max_iter does where the
#: learning rate depends on it).
_HARMLESS = {
    "max_iter",
    "max_epoch",
    "display",
    "test_iter",
    "test_interval",
    "test_epoch",
    "test_initialization",
    "test_compute_loss",
    "test_net",
    "test_state",
    "snapshot",
    "snapshot_epoch",
    "snapshot_prefix",
    "snapshot_format",
    "snapshot_diff",
    "snapshot_safetensors",
    "snapshot_after_train",
    "solver_mode",
    "device_id",
    "debug_info",
    "random_seed",
    "weights",
    "override",
    "layer_wise_reduce",
    "keep_best",
    "early_stop_patience",
    "check_finite",
    "memory_format",
    "compile",
    "cuda_graphs",
    "recompute",
    "threads",
    "update_in_backward",
    "cache_features",
    "feature_cache",
    "tensorboard",
    "net",
    "train_net",
    "net_param",
    "train_net_param",
    "test_net_param",
}


def digest(solver: Solver) -> dict[str, str]:
    """A hash for each layer of the train net and of each field of the solver, to tell what was
    edited between a snapshot and its resumption."""
    parts = {}
    for layer in solver.net.to_message().layer:
        parts[f"layer {layer.name}"] = layer.SerializeToString(deterministic=True)
    policy = solver.parameters.lr_policy
    for field, value in solver.parameters.ListFields():
        if field.name not in _HARMLESS or policies.depends_on(policy, field.name):
            parts[f"solver field {field.name}"] = repr(value).encode()
    return {name: hashlib.sha256(data).hexdigest()[:16] for name, data in parts.items()}


def compare(solver: Solver, then: dict[str, str], origin: str) -> None:
    """SnapshotError listing what differs between a snapshot's digest and the solver as it is."""
    now = digest(solver)
    changed = [name for name in now if name in then and then[name] != now[name]]
    added = [f"{name} (new)" for name in now if name not in then]
    removed = [f"{name} (gone)" for name in then if name not in now]
    if differences := changed + added + removed:
        raise SnapshotError(
            f"{origin}: net or solver were edited since this snapshot was written: "
            f"{', '.join(differences)}; undo that, or ask to go on all the same"
        )


def apply_param_rules(document: SolverDocument, net: Net) -> None:
    """Set the multipliers that param_rule gives to the parameters of matching layers.

    A parameter whose rate becomes 0 is taken out of the backward pass, and so are the layers before
    it if none of them learns. ConfigError for a pattern that matches no layer.
    """
    faults = []
    for index, rule in enumerate(document.message.param_rule):
        chosen = [param for param in net.params if checks.matches(rule.pattern, param.layer)]
        if not chosen:
            faults.append(
                Fault(
                    f'param_rule: pattern "{rule.pattern}" matches no layer with parameters '
                    f"(layers: {', '.join(dict.fromkeys(param.layer for param in net.params))})",
                    place(document, f"param_rule.{index}.pattern"),
                )
            )
        for param in chosen:
            if rule.HasField("decay_mult"):
                param.decay_mult = rule.decay_mult
            if rule.HasField("lr_mult") and param.learnable:
                param.lr_mult = rule.lr_mult
                param.tensor.requires_grad_(rule.lr_mult != 0)
    if faults:
        raise ConfigError(faults)
    if document.message.param_rule:
        net.mark_backward()
