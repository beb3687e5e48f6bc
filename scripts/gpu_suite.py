"""Run all that needs a GPU in one go and print one table: tests, races, inference, input.

Each part is a command of its own with a time limit; what it printed goes to a file beside the
table. A part that fails or runs out of time is a row that says so, and the others still run.
Whoever has a GPU can add the table to docs/benchmarks.md.

  python scripts/gpu_suite.py --gpu 0 --out gpu_suite
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
CORTADO = [sys.executable, "-m", "cortado.tools.cli"]
NETS = ["bvlc_alexnet", "bvlc_googlenet", "resnet50", "vgg16"]
#: Seconds that all parts may take together.
BUDGET = 480


@dataclass(frozen=True, slots=True)
class Part:
    """A command, the share of the budget it may take, and what its table rows are made from."""

    name: str
    command: Sequence[str]
    share: float
    rows: Callable[[Path, str], list[str]]


def rows_of_tests(_: Path, printed: str) -> list[str]:
    found = re.findall(r"^=*\s*((?:\d+ \w+(?:, )?)+) in [\d.:]+", printed, re.MULTILINE)
    return [f"tests | {found[-1]}"] if found else []


def rows_of_races(report: Path, _: str) -> list[str]:
    if not report.is_file():
        return []
    return [row(race) for race in json.loads(report.read_text())["races"]]


def row(race: dict[str, Any]) -> str:
    course, all_times = race["course"], race["contenders"]
    ours = all_times["ours"]
    against = ", ".join(
        f"{each['ratio'][0]:.2f} x {name} ({each['ratio'][1]:.2f} to {each['ratio'][2]:.2f})"
        for name, each in all_times.items()
        if name != "ours"
    )
    what = "training" if course["training"] else "inference"
    return (
        f"{what}, {course['net']}, batch {race['images']}, {course['precision']} | "
        f"{ours['images_per_second']:,.0f} img/s ({ours['ms']:.2f} ms), {ours['peak_mib']:,.0f} MiB"
        f"; {against}"
    )


def rows_of_input(_: Path, printed: str) -> list[str]:
    return [f"input | {line}" for line in printed.splitlines() if "ratio" in line]


def report_of(out: Path, name: str) -> Path:
    """Where the part ``name`` leaves what is read by programs."""
    return out / f"{name}.json"


def parts(args: argparse.Namespace, out: Path) -> list[Part]:
    python = sys.executable
    common = [*CORTADO, "bench", *args.nets, "--gpu", args.gpu, "--precision", args.precision]

    def race(name: str, share: float, phase: str, batch: int) -> Part:
        flags = ["--phase", phase, "--batch", str(batch), "--json", str(report_of(out, name))]
        return Part(name, [*common, *flags], share, rows_of_races)

    data = [python, str(ROOT / "scripts" / "bench_data.py"), "alexnet", "--gpu", args.gpu]
    return [
        Part("tests", [python, "-m", "pytest", "-q", "-m", "gpu"], 0.3, rows_of_tests),
        race("train", 0.35, "train", args.batch),
        race("single", 0.1, "test", 1),
        race("large", 0.1, "test", 64),
        Part("input", [*data, "--size", str(args.batch)], 0.15, rows_of_input),
    ]


def run(part: Part, out: Path, budget: float) -> list[str]:
    """The rows of ``part``, run for at most its share of ``budget`` seconds."""
    report = report_of(out, part.name)
    report.unlink(missing_ok=True)
    limit, began = part.share * budget, time.monotonic()
    log = out / f"{part.name}.log"
    with log.open("w+") as file:
        try:
            code: int | str = subprocess.run(  # noqa: S603
                part.command,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=limit,
                cwd=ROOT,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"stopped after {limit:.0f} s"
    rows = part.rows(report, log.read_text())
    print(f"{part.name}: {time.monotonic() - began:.0f} s, {code}", file=sys.stderr, flush=True)
    if code != 0:
        rows.append(f"{part.name} | not complete ({code}), see {log.name}")
    return rows


def machine(gpu: str) -> str:
    """Device, driver, torch and CUDA in a line."""
    if not torch.cuda.is_available():
        return f"no CUDA device; torch {torch.__version__}, {platform.processor()}"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "-i", gpu]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        found = torch.cuda.get_device_name(int(gpu))
    return f"{found.strip()}; torch {torch.__version__}, CUDA {torch.version.cuda}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", default="0", help="its number")
    parser.add_argument("--precision", default="BF16")
    parser.add_argument("--batch", type=int, default=128, help="of training")
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything")
    parser.add_argument("--out", type=Path, default=Path("gpu_suite"), help="folder for logs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    out = args.out.resolve()
    rows = [each for part in parts(args, out) for each in run(part, out, args.budget)]
    table = "\n".join([machine(args.gpu), "", "| what | result |", "|---|---|"])
    table += "".join(f"\n| {each} |" for each in rows) + "\n"
    (out / "table.md").write_text(table)
    print(table)
    return 0 if not any("not complete" in each for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
