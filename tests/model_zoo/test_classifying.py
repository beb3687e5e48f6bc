"""The zoo's models as classifiers: their scores, and torchvision's preprocessing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.models import get_model
from torchvision.transforms import functional

from cortado.layers.data.preprocessing import Preprocessing
from cortado.model_zoo import index, zoo
from cortado.netdef.deploy import outputs
from cortado.netdef.state_dicts import write_state_dict
from cortado.proto.preprocessing import contradictions
from cortado.tools.classification.model import open_model, without_softmax


def normalised(pixels: np.ndarray, size: int) -> torch.Tensor:
    """What torchvision makes of an image that needs no resizing."""
    values = functional.to_tensor(np.ascontiguousarray(pixels[:, :, ::-1]))
    cropped = functional.center_crop(values, [size])
    return functional.normalize(cropped, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (256, 256, 3), np.uint8)


def test_images_are_prepared_as_by_torchvision(pixels: np.ndarray) -> None:
    message = index.find("alexnet").preprocessing.to_message(zoo.INPUT)
    found = Preprocessing.from_message(message)(pixels)
    torch.testing.assert_close(found, normalised(pixels, 224), rtol=1e-5, atol=1e-5)


# The zoo's rules translate the names of both.
@pytest.mark.parametrize("name", ["squeezenet1_1", "densenet121"])
def test_torchvisions_weights_give_torchvisions_answer(
    name: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    twin = get_model(name, weights=None).eval()
    write_state_dict(tmp_path / "w.pth", twin.state_dict())
    cv2.imwrite(str(tmp_path / "image.png"), pixels)
    model = open_model(name, str(tmp_path / "w.pth"), batch=1)
    with torch.no_grad():
        wanted = twin(normalised(pixels, 224)[None]).softmax(1)
    found = model.classify([tmp_path / "image.png"])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    assert len(model.names) == 1000


@pytest.mark.parametrize("model", index.models().values(), ids=lambda model: model.name)
def test_every_model_gives_scores_of_its_own_preprocessing(model: index.Model) -> None:
    net = zoo.deployed(model)
    assert outputs(net.layer) == ["prob"]
    assert without_softmax(net, "prob")
    record = model.preprocessing.to_message(zoo.INPUT)
    assert (record.channels, record.height, record.width) == model.input
    again = Preprocessing.from_message(record).to_message()
    assert contradictions(record, again) == []


def test_shipped_weights_bring_the_zoos_record() -> None:
    net = zoo.load("lenet_digits", "zoo:lenet_digits")
    assert net.preprocessing == {
        "data": index.find("lenet_digits").preprocessing.to_message("data")
    }
