"""How the names in published state dicts become those of a model's layers."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from typing import Any

import torch

from ..netdef.torch_names import NameRules, Rename, modules_of
from ..proto.errors import ConfigError, nearest
from .index import FOLDER, Model


def rules(model: Model) -> NameRules:
    """The rules for state dicts of ``model``: torchvision's, new and old, and timm's."""
    renames = tuple(rename for family in model.names for rename in _families()[family])
    modules = modules_of(original_state(model.torchvision)) if model.in_order else ()
    return NameRules(renames, modules)


@functools.cache
def _families() -> Mapping[str, tuple[Rename, ...]]:
    content = tomllib.loads((FOLDER / "names.toml").read_text("utf-8"))
    return {
        name: tuple(Rename(each["from"], each["to"], tuple(each.get("at", ()))) for each in table)
        for name, table in ((name, family["rules"]) for name, family in content.items())
    }


@functools.cache
def original_state(name: str) -> Mapping[str, torch.Tensor]:
    """The state dict of torchvision's model ``name``, as meta tensors, in running order.

    ConfigError with the nearest name if torchvision has no such model.
    """
    from torchvision.models import get_model, list_models

    if name not in list_models():
        raise ConfigError(f"torchvision has no model {name!r}{nearest(name, list_models())}")
    # These two would draw their first weights from a truncated normal, number by number.
    slow: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        return dict(get_model(name, weights=None, **slow).state_dict())
