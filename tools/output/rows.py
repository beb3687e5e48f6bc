"""A training log as the rows that Caffe's parse_log.py writes: one for each displayed iteration."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from .curves import Record

Row = dict[str, float]


def rows(records: Iterable[Record]) -> tuple[list[Row], list[Row]]:
    """The rows of training and of tests: NumIters, Seconds, LearningRate and every output.

    The learning rate is the last one shown before; the first row takes that of the second, because
    a run shows it only after its first outputs.
    """
    tables: dict[str, list[Row]] = {"train": [], "test": []}
    rate = math.nan
    for record in records:
        if record.key == "lr":
            rate = record.value
            continue
        kind, slash, name = record.key.partition("/")
        if not slash:
            continue
        table = tables[kind]
        if not table or table[-1]["NumIters"] != record.iteration:
            start: Row = {"NumIters": float(record.iteration), "Seconds": record.seconds}
            table.append(start | {"LearningRate": rate})
        table[-1][name] = record.value
    for table in tables.values():
        if len(table) > 1:
            table[0]["LearningRate"] = table[1]["LearningRate"]
    return tables["train"], tables["test"]


def write_csv(path: Path, table: Sequence[Row], delimiter: str) -> None:
    """Write rows with a header; columns are those of all rows, in the order they appear."""
    columns = list(dict.fromkeys(name for row in table for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(table)
