"""Every recorded case of every layer type, against Caffe's numbers."""

from pathlib import Path

import h5py
import pytest

from cortado.layers.base import Layer
from cortado.layers.registry import find, layer_types
from support import goldens
from support.goldens import NOT_REPEATED, Case, all_cases, enter_case_folder
from support.layer_cases import CAFFE_CASES
from support.modern_layer_cases import MODERN_CASES

#: Cases without one layer under test: they run as nets (see tests/netdef).
NETS = ("Net/", "Input/", "Parameter/parameter_plus_input")

CASES = [case for case in all_cases() if not str(case).startswith(NETS)]


@pytest.fixture(autouse=True)
def _case_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_case_folder(tmp_path, monkeypatch)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layer_agrees_with_caffe(case: Case) -> None:
    result = goldens.run_layer(case)
    for key in case.part("h5"):
        with h5py.File(case.layer.hdf5_output_param.file_name) as file:
            result.check(f"h5/{key}", file[key][()])
    if str(case) in NOT_REPEATED:
        assert any(fault.startswith("indiff/") for fault in result.faults)
        return
    result.assert_agrees()


def test_every_layer_type_of_caffe_has_cases() -> None:
    computing = {name for name in layer_types() if issubclass(find(name), Layer)}
    beyond_caffe = {case.type for case in MODERN_CASES} - {case.type for case in CAFFE_CASES}
    assert {case.type for case in CASES} == computing - beyond_caffe
