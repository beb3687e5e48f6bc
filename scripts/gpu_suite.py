"""Run all that needs a GPU in one go and print one table: tests, races, inference, input.

Each part is a command of its own with a time limit. A part that fails or runs out of time is a row
that says so, the others still run, and what is left to do when the time is up is not begun. After
each part the folder holds the table so far, table.md, what everything printed, suite.log, and the
races' figures. Whoever has a GPU can add the table to docs/benchmarks.md.

  python scripts/gpu_suite.py --gpu 0 --out gpu_suite

It works from a checkout that is not installed too, where the packages that Cortado needs are there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: Seconds that all parts may take together.
BUDGET = 470.0
#: With less than this many seconds left no part is begun.
LEAST = 20.0
#: Milliseconds of a training step: the best cells of convnet-benchmarks for a Titan X (2016), by
#: net and batch.
TITAN_X = {
    ("bvlc_alexnet", 128): 71.0,
    ("overfeat_fast", 128): 176.0,
    ("vgg11", 64): 254.0,
    ("bvlc_googlenet", 128): 230.0,
}
FAILED_TESTS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Part:
    """A command, the seconds it may take, and what its table rows are made from."""

    name: str
    command: Sequence[str]
    limit: float
    rows: Callable[[Path, str], list[str]]


def rows_of_tests(_: Path, printed: str) -> list[str]:
    found = re.findall(r"^=*\s*((?:\d+ \w+(?:, )?)+) in [\d.:]+", printed, re.MULTILINE)
    bad = re.findall(r"^((?:FAILED|ERROR) [^\n]+)", printed, re.MULTILINE)
    shown = [f"test | {each[:200].replace('|', '/')}" for each in bad[:FAILED_TESTS_SHOWN]]
    return ([f"tests | {found[-1]}"] if found else []) + shown


def rows_of_races(report: Path, _: str) -> list[str]:
    if not report.is_file():
        return []
    found = json.loads(report.read_text())
    return [row(race, found.get("ceiling", 0.0)) for race in found["races"]]


def row(race: dict[str, Any], ceiling: float = 0.0) -> str:
    course, all_times = race["course"], race["contenders"]
    ours = all_times["ours"]
    against = [
        f"{each['ratio'][0]:.2f} x {name} ({each['ratio'][1]:.2f} to {each['ratio'][2]:.2f})"
        for name, each in all_times.items()
        if name != "ours"
    ]
    before = TITAN_X.get((course["net"], race["images"])) if course["training"] else None
    if before:
        against.append(f"{before / ours['ms']:.1f} x the best Titan X of 2016")
    what = "training" if course["training"] else "inference"
    compiled = ", compiled" if dict(course.get("settings") or ()).get("compile") else ""
    rate = f", {ours['gflops'] / ceiling:.0%} of the ceiling" if ceiling else ""
    return (
        f"{what}, {course['net']}, batch {race['images']}, {course['precision']}{compiled} | "
        f"{ours['images_per_second']:,.0f} img/s ({ours['ms']:.2f} ms{rate}), "
        f"{ours['peak_mib']:,.0f} MiB; {', '.join(against)}"
    )


def rows_of_input(_: Path, printed: str) -> list[str]:
    return [f"input | {line}" for line in printed.splitlines() if "ratio" in line]


def report_of(out: Path, name: str) -> Path:
    """Where the part ``name`` leaves what is read by programs."""
    return out / f"{name}.json"


def test_files() -> list[str]:
    """The test modules with tests for a GPU: others may need packages that are not there."""
    modules = sorted((ROOT / "tests").rglob("test_*.py"))
    return [
        str(each.relative_to(ROOT)) for each in modules if "pytest.mark.gpu" in each.read_text()
    ]


def parts(args: argparse.Namespace, out: Path) -> list[Part]:
    """What is run, the most wanted first; the limits leave room for two parts that hang."""
    python = sys.executable

    def race(name: str, limit: float, nets: Sequence[str], *flags: str) -> Part:
        command = [python, "-m", "cortado.tools.cli", "bench", *nets, "--gpu", args.gpu]
        command += ["--precision", args.precision, "--json", str(report_of(out, name)), *flags]
        return Part(name, command, limit, rows_of_races)

    def training(name: str, limit: float, batch: int, nets: Sequence[str], *flags: str) -> Part:
        return race(name, limit, nets, "--phase", "train", "--batch", str(batch), *flags)

    tests = [python, "-m", "pytest", "-q", "-m", "gpu", "--continue-on-collection-errors"]
    data = [python, str(ROOT / "scripts" / "bench_data.py"), "alexnet", "--gpu", args.gpu]
    data += ["--size", "128", "--precision", args.precision, "--steps", "60"]
    test = ["--phase", "test", "--batch", "1,64", "--rounds", "5"]
    inference = ["resnet50", "bvlc_googlenet", "bvlc_alexnet"]
    classics = ["bvlc_alexnet", "overfeat_fast", "bvlc_googlenet"]
    tuned = ["--against", "tuned"]
    return [
        training("resnet50", 75, 256, ["resnet50"], *tuned),
        Part("tests", [*tests, *test_files()], 130, rows_of_tests),
        training("batch_128", 100, 128, classics, *tuned),
        training("vgg", 50, 64, ["vgg11"], *tuned),
        Part("input", data, 70, rows_of_input),
        race("inference", 110, inference, *test, *tuned),
        training("compiled", 150, 256, ["resnet50"], "--compile", "--against", "tuned-compiled"),
    ]  # fmt: skip


def run(part: Part, out: Path, left: float, environment: dict[str, str] | None = None) -> list[str]:
    """The rows of ``part``, run for at most its limit or the ``left`` seconds."""
    if left < LEAST:
        return [f"{part.name} | not complete (no time was left for it)"]
    report, log = report_of(out, part.name), out / "suite.log"
    report.unlink(missing_ok=True)
    limit, began = min(part.limit, left), time.monotonic()
    with log.open("a") as file:
        file.write(f"\n### {part.name}: {' '.join(part.command)}\n")
        file.flush()
        start = file.tell()
        code = _finish(part.command, file.fileno(), limit, environment)
    with log.open() as file:
        file.seek(start)
        printed = file.read()
    print(f"{part.name}: {time.monotonic() - began:.0f} s, {code}", file=sys.stderr, flush=True)
    try:
        rows = part.rows(report, printed)
    except (KeyError, TypeError, ValueError) as error:
        rows = [f"{part.name} | its report cannot be read: {error!r}"]
    if code != 0:
        rows.append(f"{part.name} | not complete ({code}), see {log.name}")
    return rows


def _finish(
    command: Sequence[str], output: int, limit: float, environment: dict[str, str] | None
) -> int | str:
    """The exit status of ``command``, which is killed after ``limit`` seconds with all its
    children: they would go on using the GPU."""
    process = subprocess.Popen(  # noqa: S603
        command,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    try:
        return process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment(links: Path) -> dict[str, str]:
    """For the parts: ``cortado`` is this checkout, by a link in the folder ``links``."""
    (links / "cortado").symlink_to(ROOT, target_is_directory=True)
    path = os.pathsep.join(filter(None, (str(links), os.environ.get("PYTHONPATH"))))
    # What the CPU computes for comparison needs no kernels of our own, which are compiled first.
    return os.environ | {"PYTHONPATH": path, "CORTADO_NATIVE": "0", "PYTHONUNBUFFERED": "1"}


def machine(gpu: str) -> str:
    """Device, driver, torch and CUDA in a line."""
    import torch

    if not torch.cuda.is_available():
        return f"no CUDA device; torch {torch.__version__}, {platform.processor()}"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "-i", gpu]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        found = torch.cuda.get_device_name(int(gpu))
    return (
        f"{found.strip()}; torch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"cuDNN {torch.backends.cudnn.version()}; {os.cpu_count()} cores"
    )


def table_of(title: str, rows: Sequence[str]) -> str:
    lines = [title, "", "| what | result |", "|---|---|", *(f"| {each} |" for each in rows)]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", default="0", help="its number")
    parser.add_argument("--precision", default="BF16")
    parser.add_argument("--parts", nargs="+", help="these alone, by name")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything")
    parser.add_argument("--out", type=Path, default=Path("gpu_suite"), help="folder for logs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    out = args.out.resolve()
    (out / "suite.log").unlink(missing_ok=True)
    end = time.monotonic() + args.budget
    chosen = [each for each in parts(args, out) if not args.parts or each.name in args.parts]
    title, rows = machine(args.gpu), list[str]()
    with tempfile.TemporaryDirectory() as links:
        given = environment(Path(links))
        for part in chosen:
            rows += run(part, out, end - time.monotonic(), given)
            (out / "table.md").write_text(table_of(title, rows))
    print(table_of(title, rows))
    return 0 if not any("not complete" in each for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
