"""How much memory a net will need, told before anything is allocated."""

from __future__ import annotations

import math
import os

import torch

from ..proto import caffe_pb2
from ..proto.errors import ResourceError
from .blueprint import Blueprint

BYTES_PER_ELEMENT = 4


def parameter_bytes(plan: Blueprint) -> int:
    """Bytes of all parameter blobs, each shared one counted once."""
    return sum(param.tensor.numel() for param in plan.params) * BYTES_PER_ELEMENT


def blob_bytes(plan: Blueprint) -> int:
    """Bytes of all tops that take memory of their own (a layer that works in place takes none)."""
    elements = 0
    for step in plan.steps:
        elements += sum(
            math.prod(shape)
            for index, shape in enumerate(step.top_shapes)
            if index not in step.in_place
        )
    for source in plan.sources:
        elements += sum(math.prod(shape) for shape in source.top_shapes)
    return elements * BYTES_PER_ELEMENT


def available(device: torch.device) -> int:
    """Bytes of memory that ``device`` has in all."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free() -> int:
    """Bytes of the host's memory that can still be had, what files only cache included."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return available(torch.device("cpu"))


def largest_step_bytes(plan: Blueprint) -> int:
    """Bytes of the bottoms and tops of the layer with the most; no pass can do with less."""
    return (
        max(
            (
                sum(math.prod(shape) for shape in (*step.bottom_shapes, *step.top_shapes))
                for step in plan.steps
            ),
            default=0,
        )
        * BYTES_PER_ELEMENT
    )


def check(plan: Blueprint, device: torch.device) -> None:
    """Refuse a net that cannot fit: ResourceError with the estimate and the limit.

    Training keeps every activation and a gradient for each parameter; testing only what one layer
    needs at a time.
    """
    if device.type == "meta":
        return
    limit = available(device)
    parameters = parameter_bytes(plan)
    if plan.state.phase == caffe_pb2.TRAIN:
        needed = 2 * parameters + blob_bytes(plan)
    else:
        needed = parameters + largest_step_bytes(plan)
    if needed > limit:
        largest = max(plan.steps, key=lambda step: sum(map(math.prod, step.top_shapes)))
        place = largest.spec.location()
        raise ResourceError(
            f"net {plan.message.name!r} needs at least {needed / 2**30:,.1f} GiB "
            f"({parameters / 2**30:,.1f} GiB of parameters), but {device} has "
            f"{limit / 2**30:,.1f} GiB; its largest layer is {largest.name!r} with tops "
            f"{[list(shape) for shape in largest.top_shapes]}" + (f" ({place})" if place else "")
        )
