"""Split layers, as Caffe puts them in: one wherever several layers read the same blob.

A net that runs here needs none, since gradients add up by themselves. They are for those who must
see a net as Caffe shows it, where every blob has one reader at most and so a gradient of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..proto import caffe_pb2

#: A top: the index of its layer and its own index among that layer's tops.
_Top = tuple[int, int]


@dataclass(slots=True)
class _Uses:
    """Who reads a top: its bottoms as (layer, index), and whether the loss counts it."""

    readers: list[tuple[int, int]] = field(default_factory=list)
    loss_weight: float = 0.0

    @property
    def count(self) -> int:
        return len(self.readers) + (self.loss_weight != 0)


def split_layer_name(blob: str, layer: str, top: int) -> str:
    """The name of the Split behind top number ``top`` of ``layer``."""
    return f"{blob}_{layer}_{top}_split"


def split_blob_name(blob: str, layer: str, top: int, copy: int) -> str:
    """The name of one of that Split's tops."""
    return f"{split_layer_name(blob, layer, top)}_{copy}"


def insert_splits(
    layers: Sequence[caffe_pb2.LayerParameter],
) -> list[tuple[caffe_pb2.LayerParameter, int | None]]:
    """``layers`` with Split layers after those of whose tops there are several uses.

    A stated loss weight is a use like any other: the first copy then carries it. Each layer comes
    with its index among ``layers``, a Split with None. The arguments are left as they are; every
    bottom must be a top of an earlier layer.
    """
    uses = _find_uses(layers)
    renamed = _rename(layers, uses)
    result: list[tuple[caffe_pb2.LayerParameter, int | None]] = []
    for index, layer in enumerate(layers):
        own = caffe_pb2.LayerParameter()
        own.CopyFrom(layer)
        for bottom in range(len(own.bottom)):
            own.bottom[bottom] = renamed.get((index, bottom), own.bottom[bottom])
        result.append((own, index))
        for top, blob in enumerate(layer.top):
            use = uses[index, top]
            if use.count > 1:
                if use.loss_weight:
                    del own.loss_weight[:]
                result.append((_split(layer.name, blob, top, use), None))
    return result


def _find_uses(layers: Sequence[caffe_pb2.LayerParameter]) -> dict[_Top, _Uses]:
    uses: dict[_Top, _Uses] = {}
    newest: dict[str, _Top] = {}
    for index, layer in enumerate(layers):
        for bottom, blob in enumerate(layer.bottom):
            uses[newest[blob]].readers.append((index, bottom))
        for top, blob in enumerate(layer.top):
            newest[blob] = (index, top)
            uses[index, top] = _Uses()
            if top < len(layer.loss_weight):
                uses[index, top].loss_weight = layer.loss_weight[top]
    return uses


def _rename(
    layers: Sequence[caffe_pb2.LayerParameter], uses: dict[_Top, _Uses]
) -> dict[tuple[int, int], str]:
    """The copy that each bottom of a top with several uses reads."""
    names = {}
    for (index, top), use in uses.items():
        if use.count > 1:
            layer = layers[index]
            first = 1 if use.loss_weight else 0
            for copy, reader in enumerate(use.readers, first):
                names[reader] = split_blob_name(layer.top[top], layer.name, top, copy)
    return names


def _split(layer: str, blob: str, top: int, use: _Uses) -> caffe_pb2.LayerParameter:
    split = caffe_pb2.LayerParameter(
        name=split_layer_name(blob, layer, top), type="Split", bottom=[blob]
    )
    split.top.extend(split_blob_name(blob, layer, top, copy) for copy in range(use.count))
    if use.loss_weight:
        split.loss_weight.extend([use.loss_weight] + [0.0] * (use.count - 1))
    return split
