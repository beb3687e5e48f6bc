"""Every recorded case once more as a whole net: splits, sharing, rules, reshaping included."""

import pytest

from support.goldens import NOT_REPEATED, Case, all_cases, enter_case_folder
from support.net_goldens import run_net


@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_net_agrees_with_caffe(
    case: Case, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_case_folder(tmp_path_factory.mktemp("case"), monkeypatch)
    result = run_net(case)
    if str(case) in NOT_REPEATED:
        assert any(fault.startswith("indiff/") for fault in result.faults)
        return
    result.assert_agrees()
