"""Every recorded case through the Python interface: all blobs, all diffs, Caffe's own names."""

from __future__ import annotations

import pytest

from support.goldens import NOT_REPEATED, Case, all_cases, enter_case_folder
from support.pycaffe_goldens import run_case


@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_agrees_with_caffe(
    case: Case, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_case_folder(tmp_path_factory.mktemp("case"), monkeypatch)
    result = run_case(case)
    if str(case) in NOT_REPEATED:
        assert any(fault.startswith("indiff/") for fault in result.faults)
        return
    result.assert_agrees()
