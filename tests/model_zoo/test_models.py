"""Every model of the index: it builds in both phases, and its numbers are those of its net."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import cortado
from cortado.model_zoo import index, zoo
from cortado.netdef import blueprint
from cortado.netdef.summary import summarize
from cortado.proto.errors import ConfigError
from cortado.proto.files import read_net
from cortado.proto.folders import Cache
from support.zoo_plans import counted

MODELS = list(index.models().values())
SMALL = [model.name for model in MODELS if model.parameters < 1_000_000]


def names(models: list[index.Model]) -> list[str]:
    return [model.name for model in models]


@pytest.mark.parametrize("model", MODELS, ids=names(MODELS))
def test_numbers_of_the_net_for_use(model: index.Model) -> None:
    plan = counted(model.name).plan
    assert plan.outputs == ["prob"]
    assert math.prod(plan.blob_shapes["prob"]) == model.classes
    assert [source.top_shapes for source in plan.sources] == [((1, *model.input),)]
    learned = sum(param.tensor.numel() for param in plan.params if param.learnable)
    assert learned == model.parameters
    assert sum(layer.macs for layer in summarize(plan)) == model.macs


@pytest.mark.parametrize("model", MODELS, ids=names(MODELS))
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_builds_for_learning_and_testing(model: index.Model, phase: str) -> None:
    net = read_net(model.net_file).message
    zoo.feed(net, (2, *model.input))
    plan = blueprint.draw(net, phase)
    losses = [name for step in plan.steps for name in (step.tops if step.losses else ())]
    assert losses
    assert set(losses) <= set(plan.outputs)
    if phase == "TEST":
        assert any(step.type == "Accuracy" for step in plan.steps)
    used = {param.name for param in counted(model.name).plan.params}
    assert used <= {param.name for param in plan.params}


@pytest.mark.parametrize("name", SMALL)
def test_small_models_learn(name: str) -> None:
    import torch

    torch.manual_seed(0)
    net = zoo.load(name, phase="TRAIN", batch=8)
    model = index.find(name)
    batch = {"data": torch.rand(8, *model.input), "label": torch.arange(8.0) % model.classes}
    learned = [param.tensor for param in net.params if param.learnable]
    optimizer = torch.optim.Adam(learned, 1e-3)
    losses = []
    for _ in range(8):
        net(**batch)
        optimizer.zero_grad()
        net.loss.backward()
        optimizer.step()
        losses.append(net.loss.item())
    assert losses[-1] < losses[0]


def test_every_folder_is_in_the_index_and_is_complete() -> None:
    folders = {path.parent.name for path in index.FOLDER.glob("*/net.prototxt")}
    assert folders == set(index.models())
    for model in MODELS:
        assert model.solver_file.exists(), model.name
        readme = (model.folder / "README.md").read_text("utf-8")
        assert model.title in readme
        assert f"{model.parameters:,}" in readme
        assert f"{model.macs:,}" in readme
        assert model.paper in readme
        assert str(model.preprocessing) in readme
        assert "## Weights" in readme
        assert model.top1 is None or f"top-1 {model.top1:g} %" in readme
        assert all(entry.licence in readme for entry in model.own_weights)


def test_solvers_can_be_read() -> None:
    from cortado.proto.files import read_solver
    from cortado.solvers.requirements import faults
    from cortado.solvers.rules import find

    for model in MODELS:
        document = read_solver(model.solver_file)
        solver = document.message
        assert solver.net.endswith(f"{model.name}/net.prototxt")
        assert solver.max_iter > 0
        assert not list(faults(find(solver.type).requirements, document))


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'resnet50'\?"):
        zoo.load("resnet_50")
    with pytest.raises(ConfigError, match=r"no weights 'imagenet1k'.*imagenet1k_v2"):
        zoo.pull("resnet50@imagenet1k")
    with pytest.raises(ConfigError, match="no weights are published"):
        zoo.pull("nin_imagenet")


def test_the_zoo_is_an_attribute_of_the_package() -> None:
    assert cortado.zoo is zoo
    assert cortado.zoo.names() == list(index.models())


def test_torchvision_says_where_its_weights_are() -> None:
    weights = index.find("resnet50").weights()
    assert list(weights) == ["imagenet1k_v2", "imagenet1k_v1"]
    first = weights["imagenet1k_v2"]
    assert first.remote is not None
    assert first.remote.url.startswith("https://download.pytorch.org/models/resnet50-")
    assert first.remote.checksum.digits in first.remote.url
    assert first.top1 == index.find("resnet50").top1
    assert first.preprocessing.resize == 232
    # those for larger images have other position embeddings
    assert "imagenet1k_swag_e2e_v1" not in index.find("vit_b_16").weights()


def test_published_numbers_are_torchvisions() -> None:
    for model in MODELS:
        if model.torchvision:
            entry = model.find_weights()
            assert (model.top1, model.top5) == (entry.top1, entry.top5), model.name


def test_class_names() -> None:
    assert zoo.class_names("resnet18")[:2] == ["tench", "goldfish"]
    assert zoo.class_names("lenet") == list("0123456789")


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CORTADO_HOME", str(tmp_path / "here"))
    assert Cache.WEIGHTS.path == tmp_path / "here" / "weights"
    monkeypatch.delenv("CORTADO_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache.WEIGHTS.path == tmp_path / "cortado" / "weights"


def test_pages_are_those_of_the_index() -> None:
    """What scripts/generate_zoo_docs.py writes is what there is."""
    import runpy

    script = Path(__file__).parents[2] / "scripts" / "generate_zoo_docs.py"
    for path, text in runpy.run_path(str(script))["pages"]().items():
        assert path.read_text("utf-8") == text, f"{path} is old: run {script.name}"
