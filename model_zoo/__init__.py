"""The zoo: definitions of published nets, and their weights.

``zoo`` is its Python face: ``cortado.zoo.load("resnet50", weights="zoo:resnet50")``.
"""

from __future__ import annotations

from . import zoo

__all__ = ["zoo"]
