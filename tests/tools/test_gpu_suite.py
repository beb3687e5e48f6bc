"""The suite for machines with a GPU: whatever happens to a part, there is a table."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

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


def test_summary_of_tests_is_a_row(suite: ModuleType, tmp_path: Path) -> None:
    code = "print('=== 3 passed, 1 skipped, 7 deselected in 2.5s ===')"
    part = suite.Part("tests", [sys.executable, "-c", code], 1.0, suite.rows_of_tests)
    assert suite.run(part, tmp_path, 60) == ["tests | 3 passed, 1 skipped, 7 deselected"]


def test_part_that_fails_or_hangs_is_a_row(suite: ModuleType, tmp_path: Path) -> None:
    failing = suite.Part("a", [sys.executable, "-c", "raise SystemExit(3)"], 1.0, lambda *_: [])
    hanging = suite.Part(
        "b", [sys.executable, "-c", "import time; time.sleep(60)"], 0.01, lambda *_: []
    )
    assert suite.run(failing, tmp_path, 60) == ["a | not complete (3), see a.log"]
    assert suite.run(hanging, tmp_path, 60) == ["b | not complete (stopped after 1 s), see b.log"]


def test_race_is_a_row_with_its_ratios(suite: ModuleType, tmp_path: Path) -> None:
    times = {"images_per_second": 4000.0, "ms": 32.0, "peak_mib": 2048.0}
    race = {
        "course": {"training": True, "net": "resnet50", "precision": "BF16"},
        "images": 128,
        "contenders": {
            "ours": times | {"ratio": [1, 1, 1]},
            "tuned": times | {"ratio": [1.25, 1.2, 1.3]},
        },
    }
    report = tmp_path / "train.json"
    report.write_text(json.dumps({"races": [race]}))
    (row,) = suite.rows_of_races(report, "")
    assert row == (
        "training, resnet50, batch 128, BF16 | 4,000 img/s (32.00 ms), 2,048 MiB; "
        "1.25 x tuned (1.20 to 1.30)"
    )
