"""Flags of how nets are run, shared by train, test and time: precision, layout, threads."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .flags import at_least, comma_list, one_of

if TYPE_CHECKING:
    from ..netdef.execution import Execution


def add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("execution (docs/performance.md)")
    group.add_argument(
        "--precision",
        type=one_of("fp32", "tf32", "bf16", "fp16", "auto"),
        help="arithmetic of products (default FP32, exact)",
    )
    group.add_argument(
        "--memory_format",
        type=one_of("best", "channels_last", "contiguous"),
        help="layout of blobs in memory (default BEST)",
    )
    group.add_argument(
        "--compile",
        action="store_const",
        const=True,
        default=None,
        help="run through torch.compile",
    )
    group.add_argument(
        "--recompute", help="layers to compute again in backward, a comma list; AUTO"
    )
    group.add_argument("--threads", type=at_least(1), help="threads of the CPU")


def assignments(args: argparse.Namespace) -> list[str]:
    """The flags that were given, as assignments to fields of a solver."""
    given = {
        "precision": args.precision and args.precision.upper(),
        "memory_format": args.memory_format and args.memory_format.upper(),
        "compile": args.compile and "true",
        "recompute": args.recompute,
        "threads": args.threads,
    }
    return [f"{name}={value}" for name, value in given.items() if value]


def execution(args: argparse.Namespace) -> Execution:
    """The settings for a net that the flags give."""
    from ..netdef.execution import Execution

    return Execution(
        precision=(args.precision or "fp32").upper(),
        memory_format=(args.memory_format or "best").upper(),
        recompute=tuple(comma_list(args.recompute or "")),
        compile=bool(args.compile),
    )
