"""Predict the memory of a training step, and propose how to fit a batch into a GPU or a CPU.

Nothing is allocated: the net runs on tensors without memory. For each precision, with and without
recomputation, it says what the net's own batch needs, the largest batch that fits, and how many
passes (iter_size) reach the wanted effective batch. On a CPU compiled kernels keep less for
backward. Data that are not there are taken for colour images of crop_size, unless --shape tells
more.

examples:
  cortado plan train_val.prototxt --gpu-memory 8G --batch 256
  cortado plan train_val.prototxt --cpu-memory 4G
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from .flags import at_least, parse_shape, shape_flag

if TYPE_CHECKING:
    from ..netdef.execution import Execution
    from ..proto.caffe_pb2 import NetParameter

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
#: What a process holds besides tensors: on a GPU CUDA's context, libraries and their workspace, on
#: a CPU Python and torch.
CONTEXT = "0.7G"


def size(text: str) -> int:
    """An argparse type: bytes from a number with K, M, G or T."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"must be a size such as 8G or 512M, got {text!r}")
    return int(float(found.group(1)) * _UNITS[found.group(2).upper()])


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", metavar="NET", help="net prototxt")
    memory = parser.add_mutually_exclusive_group()
    memory.add_argument("--gpu_memory", type=size, default=size("8G"), help="e.g. 8G (default)")
    memory.add_argument("--cpu_memory", type=size, help="plan for a CPU with this memory")
    parser.add_argument("--batch", type=at_least(0), default=0, help="wanted effective batch")
    parser.add_argument(
        "--update_in_backward",
        action="store_true",
        help="with this field of the solver, for batches of one pass",
    )
    shape_flag(parser)
    parser.add_argument("--solver_type", default="SGD", help="type of the solver (default SGD)")
    parser.add_argument(
        "--reserve", type=size, default=size(CONTEXT), help=f"left for torch itself ({CONTEXT})"
    )


def run(args: argparse.Namespace) -> int:
    from ..netdef.execution import BF16, FP32, Execution
    from ..netdef.prediction import batched
    from ..solvers.rules import find
    from .check import aligned, amount

    own = batched(args.net, "TRAIN", shapes=dict(map(parse_shape, args.shape)))
    images = batch_of(own)
    slots = find(args.solver_type).slots
    memory = args.cpu_memory or args.gpu_memory
    rows = [("precision", "recompute", f"batch {images}", "largest batch", "proposal")]
    for precision in (FP32, BF16):
        for recompute in ((), ("AUTO",)):
            execution = Execution(precision=precision, recompute=recompute)
            needs = _needs(
                own,
                images,
                execution,
                slots,
                kernels=bool(args.cpu_memory),
                early=args.update_in_backward,
            )
            largest = fitting(needs, memory - args.reserve)
            rows.append(
                (
                    precision,
                    " ".join(recompute) or "no",
                    f"{amount(needs[0][1])}B",
                    str(largest),
                    proposal(largest, args.batch or images, args.update_in_backward),
                )
            )
    print(aligned(rows, right=(2, 3)))
    print(
        f"\npeak of a training step with {args.solver_type}: parameters, gradients, history and "
        f"activations; {amount(memory)}B less {amount(args.reserve)}B for torch itself"
    )
    return 0


def batch_of(message: NetParameter) -> int:
    """Images a pass: the first axis of the first input."""
    for layer in message.layer:
        for shape in layer.input_param.shape:
            if shape.dim:
                return int(shape.dim[0])
    return 1


def _needs(
    net: NetParameter, images: int, execution: Execution, slots: int, **how: bool
) -> list[tuple[int, int]]:
    """Batches and the bytes they need: the net's own, and twice that; ``how`` as ``predict`` takes
    it."""
    from ..netdef.prediction import batched, predict

    needs = []
    for count in (images, 2 * images):
        message = batched(net, "TRAIN", count)
        need = predict(message, "TRAIN", execution, slots, **how)
        needs.append((count, need.peak))
    return needs


def fitting(needs: list[tuple[int, int]], limit: int) -> int:
    from ..netdef.prediction import largest_batch

    return largest_batch(needs, limit)


def proposal(largest: int, wanted: int, one_pass: bool = False) -> str:
    """Batch and iter_size for an effective batch: as few passes as possible, of equal size."""
    if largest < 1:
        return "does not fit"
    if one_pass and wanted > largest:
        return "does not fit in one pass"
    passes = next(n for n in range(1, wanted + 1) if wanted % n == 0 and wanted // n <= largest)
    return f"batch_size {wanted // passes}, iter_size {passes}"
