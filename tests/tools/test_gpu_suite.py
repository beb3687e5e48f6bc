"""The suite for machines with a GPU: whatever happens to a part, there is a table."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cortado.model_zoo import index

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu_suite.py"


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_suite", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_suite", module)
    spec.loader.exec_module(module)
    return module


def part(suite: ModuleType, name: str, code: str, limit: float = 60, rows: Any = None) -> Any:
    return suite.Part(name, [sys.executable, "-c", code], limit, rows or (lambda *_: []))


def test_summary_of_tests_is_a_row_and_those_that_failed_are_named(
    suite: ModuleType, tmp_path: Path
) -> None:
    code = "print('FAILED tests/a.py::b - x | y')\nprint('=== 3 passed, 1 failed in 2.5s ===')"
    tests = part(suite, "tests", code, rows=suite.rows_of_tests)
    assert suite.run(tests, tmp_path, 60) == [
        "tests | 3 passed, 1 failed",
        "test | FAILED tests/a.py::b - x / y",
    ]


def test_part_that_fails_hangs_or_comes_too_late_is_a_row(
    suite: ModuleType, tmp_path: Path
) -> None:
    failing = part(suite, "a", "raise SystemExit(3)")
    hanging = part(suite, "b", "import time; time.sleep(60)", limit=1)
    assert suite.run(failing, tmp_path, 60) == ["a | not complete (3), see suite.log"]
    assert suite.run(hanging, tmp_path, 60) == [
        "b | not complete (stopped after 1 s), see suite.log"
    ]
    assert suite.run(failing, tmp_path, 5) == ["a | not complete (no time was left for it)"]


def test_what_a_part_began_ends_with_it(suite: ModuleType, tmp_path: Path) -> None:
    """Else it would go on using the GPU."""
    child = "import time; time.sleep(60)"
    code = f"""
import subprocess, sys, time
made = subprocess.Popen([sys.executable, "-c", {child!r}])
print("child", made.pid, flush=True)
time.sleep(60)
"""
    suite.run(part(suite, "a", code, limit=3), tmp_path, 60)
    found = re.search(r"^child (\d+)$", (tmp_path / "suite.log").read_text(), re.MULTILINE)
    assert found
    deadline = time.monotonic() + 30  # a process that is killed ends when it is its turn
    while is_alive(int(found[1])):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(process: int) -> bool:
    """Whether a process still runs; one that nobody has waited for yet does not."""
    try:
        return Path("/proc", str(process), "stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_parts_run_from_a_checkout_that_is_not_installed(suite: ModuleType, tmp_path: Path) -> None:
    given = suite.environment(tmp_path)
    code = "import cortado, os; print(os.path.realpath(cortado.__path__[0]))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(suite.ROOT)


def test_tests_for_a_gpu_are_found(suite: ModuleType) -> None:
    found = suite.test_files()
    assert "tests/layers/test_contract.py" in found
    assert len(found) < 20


def test_every_net_of_the_suite_is_in_the_zoo(suite: ModuleType, tmp_path: Path) -> None:
    arguments = argparse.Namespace(gpu="0", precision="BF16")
    nets = {word for each in suite.parts(arguments, tmp_path) for word in each.command}
    assert {name for name, _ in suite.TITAN_X} | {"resnet50"} <= nets & set(index.models())


def test_race_is_a_row_with_its_ratios(suite: ModuleType, tmp_path: Path) -> None:
    times = {"images_per_second": 4000.0, "ms": 32.0, "peak_mib": 2048.0, "gflops": 300.0}
    race = {
        "course": {
            "training": True,
            "net": "bvlc_alexnet",
            "precision": "BF16",
            "settings": [["compile", True], ["precision", "BF16"]],
        },
        "images": 128,
        "contenders": {
            "ours": times | {"ratio": [1, 1, 1]},
            "tuned": times | {"ratio": [1.25, 1.2, 1.3]},
        },
    }
    report = tmp_path / "train.json"
    report.write_text(json.dumps({"ceiling": 1000.0, "races": [race]}))
    (row,) = suite.rows_of_races(report, "")
    assert row == (
        "training, bvlc_alexnet, batch 128, BF16, compiled | 4,000 img/s (32.00 ms, 30% of the "
        "ceiling), 2,048 MiB; 1.25 x tuned (1.20 to 1.30), 2.2 x the best Titan X of 2016"
    )
