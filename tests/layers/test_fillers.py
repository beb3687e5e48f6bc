"""Every filler: the values and statistics that Caffe produced, and refusal of what cannot work."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from cortado.layers import fillers
from cortado.proto import caffe_pb2
from cortado.proto.errors import LayerError

GOLDENS = Path(__file__).parents[1] / "goldens" / "fillers"
CASES = json.loads((GOLDENS / "fillers.json").read_text())
EXACT = np.load(GOLDENS / "deterministic.npz")


def read(text: str) -> fillers.Filler:
    return fillers.from_message(text_format.Parse(text, caffe_pb2.FillerParameter()))


def filled(case: dict) -> torch.Tensor:
    torch.manual_seed(1)
    blob = torch.empty(case["shape"])
    read(case["filler"])(blob)
    return blob


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_agrees_with_caffe(case: dict) -> None:
    blob = filled(case).double()
    if case["name"] in EXACT:
        np.testing.assert_allclose(blob.numpy(), EXACT[case["name"]], rtol=1e-6, atol=1e-7)
        return
    observed = case["observed"]
    # Two samples of n draws: their means differ by a few std * sqrt(2 / n).
    slack = 6 * math.sqrt(2 / blob.numel())
    std = max(observed["std"], 1e-12)
    assert abs(blob.mean().item() - observed["mean"]) <= slack * std
    assert abs(blob.std(correction=0).item() - observed["std"]) <= 2 * slack * std
    kept = (blob != 0).double().mean().item()
    assert abs(kept - observed["nonzero_fraction"]) <= slack
    quantiles = torch.quantile(blob.flatten()[:50000], torch.tensor([0.25, 0.5, 0.75]).double())
    expected = np.array(observed["quantiles_01_25_50_75_99"][1:4])
    np.testing.assert_allclose(quantiles.numpy(), expected, atol=0.05 * std)
    if "max_abs" in case["theory"]:
        assert blob.abs().max().item() <= case["theory"]["max_abs"] * (1 + 1e-6)


def test_positive_unitball_rows_sum_to_one() -> None:
    blob = torch.empty(5, 3, 2)
    read('type: "positive_unitball"')(blob)
    torch.testing.assert_close(blob.flatten(1).sum(1), torch.ones(5))
    assert blob.min() >= 0


def test_same_seed_same_values() -> None:
    case = {"filler": 'type: "msra"', "shape": [8, 3]}
    assert torch.equal(filled(case), filled(case))


def test_meta_tensors_leave_the_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for name in fillers.filler_types():
        read(f'type: "{name}"')(torch.empty(4, 4, 3, 3, device="meta"))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ('type: "xavir"', "filler.type", "did you mean 'xavier'"),
        ('type: "gaussian" std: 0', "filler.std", "greater than 0"),
        ('type: "gaussian" sparse: -2', "filler.sparse", "at least 0"),
        ('type: "uniform" min: 2', "filler.min", "at most max"),
        ('type: "xavier" sparse: 2', "filler.sparse", "'gaussian' only"),
    ],
)
def test_refuses(text: str, field: str, words: str) -> None:
    with pytest.raises(LayerError, match=words) as caught:
        read(text)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "shape"),
    [('type: "bilinear"', (2, 1, 2, 3)), ('type: "gaussian" sparse: 3', (2, 4))],
)
def test_refuses_shape(text: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(LayerError):
        read(text)(torch.empty(shape, device="meta"))
