"""Update rules: a file per family, each rule one registered function over lists of tensors."""

from .base import Rule, Step, find, register, rule_names

__all__ = ["Rule", "Step", "find", "register", "rule_names"]
