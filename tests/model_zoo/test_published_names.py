"""State dicts with the names of timm and of old versions of torchvision find their layers.

What timm calls its parameters, and what its nets compute with made-up weights, was recorded with
scripts/record_timm.py.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from cortado.model_zoo import index, zoo
from cortado.model_zoo.published_names import original_state, rules
from cortado.netdef.state_dicts import write_state_dict
from cortado.netdef.torch_names import match, to_weights
from support.made_up_weights import made_up_image, made_up_state
from support.torchvision_twins import distance
from support.zoo_plans import counted

RECORDED = Path(__file__).parents[1] / "goldens" / "timm" / "models.json.gz"
TIMM: dict[str, dict[str, Any]] = json.loads(gzip.decompress(RECORDED.read_bytes()))
COMPUTED = [name for name, entry in TIMM.items() if "scores" in entry]


def test_the_index_says_what_timm_calls_its_models() -> None:
    named = {model.timm: model.name for model in index.models().values() if model.timm}
    assert named == {name: entry["model"] for name, entry in TIMM.items()}


@pytest.mark.parametrize("name", TIMM)
def test_every_name_of_timms_has_a_blob_of_its_shape(name: str) -> None:
    model = index.find(TIMM[name]["model"])
    steps = counted(model.name).plan.steps
    state = {key: torch.zeros(1).expand(shape) for key, shape in TIMM[name]["shapes"].items()}
    found = {layer.name: layer for layer in to_weights(state, steps, name, rules(model)).layers}
    assert found.keys() == {step.name for step in steps if step.layer.blobs}
    for step in steps:
        for position, blob in enumerate(step.layer.blobs):
            stored = found[step.name].blobs[position]
            assert stored is not None
            assert stored.data.shape == step.layer.blob(position).shape, (step.name, blob.name)


@pytest.mark.parametrize("name", COMPUTED)
def test_same_scores_as_timms(name: str, tmp_path: Path) -> None:
    """Read from a safetensors file, as timm publishes them; its keys are sorted."""
    model = index.find(TIMM[name]["model"])
    save_file(made_up_state(TIMM[name]["shapes"]), tmp_path / "timm.safetensors")
    # timm has torch's own eps there, torchvision that of the paper's program
    variables = {"eps": 1e-5} if name.startswith("mobilenetv3") else None
    net = zoo.load(model.name, tmp_path / "timm.safetensors", variables=variables)
    net.keep_blobs = True
    with torch.no_grad():
        net(data=made_up_image(model.input))
    (scores,) = net.layer("prob").bottoms
    wanted = torch.tensor(TIMM[name]["scores"])
    assert distance(net.blobs[scores].flatten()[: len(wanted)], wanted) < 1e-4


def shapes(name: str) -> dict[str, list[int]]:
    """The floating-point tensors of torchvision's model."""
    state = original_state(index.find(name).torchvision)
    return {key: list(value.shape) for key, value in state.items() if value.is_floating_point()}


@pytest.mark.parametrize(
    ("name", "now", "then"),
    [
        ("densenet121", r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2"),
        ("vit_b_16", r"mlp\.[03]", lambda found: f"mlp.linear_{1 if found[0] == 'mlp.0' else 2}"),
    ],
)
def test_old_names_of_torchvisions(name: str, now: str, then: Any) -> None:
    model = index.find(name)
    steps = counted(model.name).plan.steps
    old = {re.sub(now, then, key): key for key in shapes(name)}
    assert old.keys() != shapes(name).keys()
    wanted, found = (match(keys, steps, rules(model)) for keys in (shapes(name), old))
    assert not found.unmatched
    assert {old[key]: slot for key, slot in found.slots.items()} == wanted.slots


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_order_and_counters_do_not_matter(ending: str, tmp_path: Path) -> None:
    """Before PyTorch 0.4.1 nobody counted batches, and safetensors sorts its keys."""
    state = dict(sorted(made_up_state(shapes("squeezenet1_1")).items()))
    write_state_dict(tmp_path / f"w.{ending}", state)
    net = zoo.load("squeezenet1_1", tmp_path / f"w.{ending}")
    twin = torchvision.models.squeezenet1_1(weights=None).eval()
    twin.load_state_dict(state)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert distance(net(data=x)["prob"], twin(x).softmax(1)) < 1e-4


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_go_to_the_net_that_learns(name: str, tmp_path: Path) -> None:
    model = index.find(name)
    write_state_dict(tmp_path / "w.pth", made_up_state(shapes(name)))
    entry = model.find_weights()
    heads = {
        layer.name
        for layer in zoo.read_entry(model, entry, tmp_path / "w.pth").layers
        if layer.type and layer.name.lower().startswith("aux")
    }
    net = zoo.load(name, tmp_path / "w.pth", phase="TRAIN", batch=1)
    learning = {step.name for step in net.steps if step.layer.blobs}
    assert heads == {each for each in learning if each.lower().startswith("aux")}
    assert heads
