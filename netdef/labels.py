"""Telling data sources which class labels the net can take, so that they check every batch."""

from __future__ import annotations

from collections.abc import Sequence

from .steps import SourceStep, Step


def announce(sources: Sequence[SourceStep], steps: Sequence[Step]) -> None:
    """Give each source the range of labels of every top that layers read as class labels.

    Where several layers read one top, the smallest number of classes counts; a value that any of
    them ignores is allowed. Labels that pass through other layers first are not followed.
    """
    ranges: dict[str, tuple[int, frozenset[int]]] = {}
    for step in steps:
        found = step.layer.label_range(step.bottom_shapes)
        if found is None or found.bottom >= len(step.bottoms):
            continue
        blob = step.bottoms[found.bottom]
        classes, ignored = ranges.get(blob, (found.classes, frozenset()))
        if found.ignored is not None:
            ignored |= {found.ignored}
        ranges[blob] = (min(classes, found.classes), ignored)
    for source in sources:
        for index, top in enumerate(source.tops):
            if top in ranges:
                source.source.expect_labels(index, *ranges[top])
