"""The short form of nets and solvers: blocks, repetition, variables, includes.

:func:`expand` stands between the syntax tree and the message: it takes the tree of a text in the
short form and gives the tree of plain fields. docs/blocks.md has the grammar and the reasons.
"""

from __future__ import annotations

from .definitions import Definition
from .expander import KEYWORDS, definitions, expand
from .settings import Settings, parse_settings

__all__ = ["KEYWORDS", "Definition", "Settings", "definitions", "expand", "parse_settings"]
