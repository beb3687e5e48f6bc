"""How coordinates of one blob lie in another, and the Crop that aligns the two.

Written for nets of :mod:`.net_spec`. A map is (axis, scale, shift): what is at ``x`` in the input
is at ``scale * x + shift`` in the output; axis None means that it holds for any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .net_spec import Function, Top
from .net_spec import layers as L

#: (axis from which coordinates count, scale, shift); scale and shift may be arrays.
Map = tuple[int | None, Any, Any]

IDENTITY: Map = (None, 1, 0)

#: Layers that leave every value where it is.
PASS_THROUGH_LAYERS = [
    "AbsVal", "BatchNorm", "Bias", "BNLL", "Dropout", "Eltwise", "ELU", "Log", "LRN", "Exp",
    "MVN", "Power", "ReLU", "PReLU", "Scale", "Sigmoid", "Split", "TanH", "Threshold",
]  # fmt: skip
_LEGACY = {"pad_h", "pad_w", "kernel_h", "kernel_w", "stride_h", "stride_w"}


class UndefinedMapException(Exception):
    """A layer does not keep coordinates."""


class AxisMismatchException(Exception):
    """Two maps count coordinates from different axes."""


def conv_params(fn: Function) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Axis, stride, extent of the (dilated) kernel and padding of a layer with windows."""
    fields = fn.params.get("convolution_param", fn.params)
    assert not _LEGACY & set(fields), "cropping does not support legacy _h/_w params"
    kernel, stride, pad, dilation = (
        np.array(fields.get(name, default), ndmin=1)
        for name, default in (("kernel_size", 1), ("stride", 1), ("pad", 0), ("dilation", 1))
    )
    return fields.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def crop_params(fn: Function) -> tuple[int, np.ndarray]:
    """Axis and offsets of a Crop."""
    fields = fn.params.get("crop_param", fn.params)
    return fields.get("axis", 2), np.array(fields.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> Map:
    """The map of one layer; UndefinedMapException for layers that mix coordinates."""
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, extent, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (extent - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, extent, pad = conv_params(fn)
        return axis, stride, (extent - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH_LAYERS:
        return IDENTITY
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset  # the axis before the first one that is cropped
    raise UndefinedMapException(fn.type_name)


def compose(base_map: Map, next_map: Map) -> Map:
    """``base_map`` of what ``next_map`` gives."""
    axis, scale, shift = base_map
    next_axis, next_scale, next_shift = next_map
    if axis is not None and next_axis is not None and axis != next_axis:
        raise AxisMismatchException(f"coordinates count from axis {axis} and from {next_axis}")
    return next_axis if axis is None else axis, scale * next_scale, scale * next_shift + shift


def inverse(coord_map: Map) -> Map:
    """The way back."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """The map from the coordinates of ``top_from`` to those of ``top_to``, through the first blob
    that both come from; RuntimeError if there is none."""
    from_maps = dict(_walk(top_from))
    for top, to_map in _walk(top_to):
        if top in from_maps:
            return compose(to_map, inverse(from_maps[top]))
    raise RuntimeError("Could not compute map between tops; are they connected by spatial layers?")


def _walk(top: Top) -> Iterator[tuple[Top, Map]]:
    """``top`` and what it is made of, each with its map to ``top``'s coordinates.

    Of a Crop only the first bottom counts: the second gives but a size.
    """
    found: dict[Top, Map] = {top: IDENTITY}
    frontier = [top]
    while frontier:
        current = frontier.pop()
        yield current, found[current]
        try:
            step = coord_map(current.fn)
        except UndefinedMapException:
            continue
        bottoms = current.fn.inputs
        for bottom in bottoms[:1] if current.fn.type_name == "Crop" else bottoms:
            found[bottom] = compose(found[current], step)
            frontier.append(bottom)


def crop(top_from: Top, top_to: Top) -> Top:
    """A Crop of ``top_from`` to what lies over ``top_to``.

    AssertionError if the scales differ or the offset is negative or no whole number.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    assert axis is not None, "the two have no layer with windows between them"
    assert (scale == 1).all(), f"scale mismatch on crop (a = {scale})"
    assert (shift <= 0).all(), f"cannot crop negative offset (b = {shift})"
    assert (np.round(shift) == shift).all(), f"cannot crop noninteger offset (b = {shift})"
    offset = [int(value) for value in np.atleast_1d(-np.round(shift))]
    top = L.Crop(top_from, top_to, crop_param={"axis": axis + 1, "offset": offset})
    assert isinstance(top, Top)
    return top
