"""Running a net over more data than a batch holds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np

from .blob import NetBlob

Batch = dict[str, Any]


class Batches:
    """What a net can do with arrays of any length, batch after batch."""

    blobs: OrderedDict[str, NetBlob]

    @property
    def inputs(self) -> list[str]:
        raise NotImplementedError

    @cached_property
    def outputs(self) -> list[str]:
        raise NotImplementedError

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: Any,
    ) -> Batch:
        raise NotImplementedError

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: Any,
    ) -> Batch:
        raise NotImplementedError

    def forward_all(self, blobs: Sequence[str] | None = None, **kwargs: Any) -> Batch:
        """Run forward over arrays of any length; returns outputs and ``blobs`` for all of it."""
        results: list[Batch] = []
        for batch in self._batch(kwargs):
            found = self.forward(blobs=blobs, **batch)
            results.append({name: values.copy() for name, values in found.items()})
        return _joined(results, _length(kwargs))

    def forward_backward_all(
        self,
        blobs: Sequence[str] | None = None,
        diffs: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> tuple[Batch, Batch]:
        """Run forward and backward over inputs and output diffs of any length.

        Returns outputs and ``blobs``, and the diffs of inputs and of ``diffs``, for all of it.
        """
        given = [
            {name: kwargs[name] for name in names if name in kwargs}
            for names in (self.inputs, self.outputs)
        ]
        forward, backward = (self._batch(arrays) if arrays else iter(()) for arrays in given)
        all_data: list[Batch] = []
        all_diffs: list[Batch] = []
        nothing: Batch = {}
        for tops, gradients in zip_longest(forward, backward, fillvalue=nothing):
            data = self.forward(blobs=blobs, **tops)
            all_data.append({name: values.copy() for name, values in data.items()})
            diff = self.backward(diffs=diffs, **gradients)
            all_diffs.append({name: values.copy() for name, values in diff.items()})
        length = _length(kwargs)
        return _joined(all_data, length), _joined(all_diffs, length)

    def _batch(self, blobs: Batch) -> Iterator[Batch]:
        """Parts of ``blobs`` as long as a batch; the last one is filled up with zeros."""
        length = _length(blobs)
        size = next(iter(self.blobs.values())).shape[0]
        for start in range(0, length, size):
            part = {
                name: np.asarray(values[start : start + size]) for name, values in blobs.items()
            }
            missing = size - min(size, length - start)
            if missing:
                for name, values in part.items():
                    padding = np.zeros((missing, *values.shape[1:]), values.dtype)
                    part[name] = np.concatenate([values, padding])
            yield part


def _length(arrays: Batch) -> int:
    return len(next(iter(arrays.values())))


def _joined(parts: Sequence[Batch], length: int) -> Batch:
    """The parts one after the other, without what filled up the last one."""
    if not parts:
        return {}
    return {
        name: np.concatenate([np.atleast_1d(part[name]) for part in parts])[:length]
        for name in parts[0]
    }
