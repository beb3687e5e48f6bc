"""Show the devices that nets can run on.

Without --gpu the processor and every GPU are shown; with it, the GPUs named.

example:
  cortado device_query --gpu all
"""

from __future__ import annotations

import argparse

from . import device


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpu", default="", help="comma list of device ids, or all")


def run(args: argparse.Namespace) -> int:
    if not args.gpu:
        _print(device.describe_cpu())
    wanted = device.ids(args.gpu) if args.gpu else range(device.count())
    for index in wanted:
        print()
        _print(device.describe_gpu(index))
    return 0


def _print(rows: dict[str, str]) -> None:
    width = max(map(len, rows)) + 1
    for name, value in rows.items():
        print(f"{name + ':':<{width}} {value}")
