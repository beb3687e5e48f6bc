"""How long `cortado --help` takes, against an interpreter that does nothing (median of 11)."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - began


def main() -> None:
    helps, nothings = [], []
    for _ in range(11):
        helps.append(seconds("-m", "cortado.tools.cli", "--help"))
        nothings.append(seconds("-c", "pass"))
    print(f"cortado --help: {statistics.median(helps):.3f} s (slowest {max(helps):.3f})")
    print(f"python -c pass: {statistics.median(nothings):.3f} s (slowest {max(nothings):.3f})")


if __name__ == "__main__":
    main()
