"""Images and messages: caffe.io, and the classes that feed images to nets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cortado.proto import caffe_pb2
from cortado.tools import pycaffe as caffe
from cortado.tools.pycaffe.io import Transformer
from support.pycaffe_nets import write_net

RANDOM = np.random.RandomState(0)


def test_messages_and_back() -> None:
    values = RANDOM.randn(2, 3, 4).astype(np.float32)
    blob = caffe.io.array_to_blobproto(values, diff=2 * values)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), values)
    np.testing.assert_allclose(caffe.io.blobproto_to_array(blob, return_diff=True), 2 * values)
    packed = caffe.io.arraylist_to_blobprotovector_str([values, values[0]])
    back = caffe.io.blobprotovector_str_to_arraylist(packed)
    assert [each.shape for each in back] == [(2, 3, 4), (3, 4)]
    legacy = caffe_pb2.BlobProto(num=1, channels=2, height=3, width=4, data=values.ravel())
    assert caffe.io.blobproto_to_array(legacy).shape == (1, 2, 3, 4)
    with pytest.raises(ValueError, match="reshape"):
        caffe.io.blobproto_to_array(caffe_pb2.BlobProto(data=[1, 2]))


def test_datums_and_back() -> None:
    pixels = RANDOM.randint(0, 256, (3, 4, 5)).astype(np.uint8)
    datum = caffe.io.array_to_datum(pixels, label=7)
    assert (datum.channels, datum.height, datum.width, datum.label) == (3, 4, 5, 7)
    np.testing.assert_array_equal(caffe.io.datum_to_array(datum), pixels)
    floats = caffe.io.array_to_datum(pixels / 255.0)
    assert not floats.HasField("label")
    np.testing.assert_allclose(caffe.io.datum_to_array(floats), pixels / 255.0, rtol=1e-6)
    with pytest.raises(ValueError, match="3 axes"):
        caffe.io.array_to_datum(pixels[0])


def test_images_are_rgb_from_0_to_1(tmp_path: Path) -> None:
    pixels = RANDOM.randint(0, 256, (6, 5, 3)).astype(np.uint8)
    path = str(tmp_path / "image.png")
    cv2.imwrite(path, pixels)
    image = caffe.io.load_image(path)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, pixels[:, :, ::-1] / 255, rtol=1e-6)
    grey = caffe.io.load_image(path, color=False)
    np.testing.assert_allclose(grey[:, :, 0], image @ [0.2125, 0.7154, 0.0721], rtol=1e-5)
    cv2.imwrite(path, np.dstack([pixels, pixels[:, :, 0]]))
    assert caffe.io.load_image(path).shape == (6, 5, 3)
    cv2.imwrite(path, pixels[:, :, 0].astype(np.uint16) * 257)
    np.testing.assert_allclose(caffe.io.load_image(path)[:, :, 2], pixels[:, :, 0] / 255, rtol=1e-6)
    with pytest.raises(FileNotFoundError):
        caffe.io.load_image(str(tmp_path / "none.png"))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="not an image"):
        caffe.io.load_image(str(tmp_path / "text.png"))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_resizing_keeps_range_and_linear_ramps(channels: int) -> None:
    ramp = np.tile(np.linspace(2, 6, 32, dtype=np.float32)[None, :, None], (16, 1, channels))
    small = caffe.io.resize_image(ramp, (8, 16))
    assert small.shape == (8, 16, channels)
    assert small.dtype == np.float32
    steps = np.diff(small[4, :, 0])
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
    same = caffe.io.resize_image(ramp, (16, 32))
    np.testing.assert_allclose(same, ramp, rtol=1e-6)
    constant = np.full((4, 4, channels), 3, np.float32)
    assert (caffe.io.resize_image(constant, (9, 7)) == 3).all()
    picked = caffe.io.resize_image(ramp, (8, 16), interp_order=0)
    assert np.isin(picked, ramp).all()
    with pytest.raises(ValueError, match="interp_order"):
        caffe.io.resize_image(ramp, (8, 16), interp_order=3)


def test_halving_takes_the_mean_of_four_pixels() -> None:
    image = RANDOM.rand(6, 8, 3).astype(np.float32)
    mean = image.reshape(3, 2, 4, 2, 3).mean((1, 3))
    np.testing.assert_allclose(caffe.io.resize_image(image, (3, 4)), mean, rtol=1e-5)


def test_ten_crops() -> None:
    image = np.arange(36, dtype=np.float32).reshape(6, 6, 1)
    crops = caffe.io.oversample([image, image + 100], (4, 4))
    assert crops.shape == (20, 4, 4, 1)
    np.testing.assert_array_equal(crops[0], image[:4, :4])
    np.testing.assert_array_equal(crops[3], image[2:, 2:])
    np.testing.assert_array_equal(crops[4], image[1:5, 1:5])
    np.testing.assert_array_equal(crops[5], image[:4, :4][:, ::-1])
    np.testing.assert_array_equal(crops[10], image[:4, :4] + 100)


def transformer() -> Transformer:
    result = caffe.io.Transformer({"data": (2, 3, 4, 5)})
    result.set_transpose("data", (2, 0, 1))
    result.set_channel_swap("data", (2, 1, 0))
    result.set_raw_scale("data", 255)
    result.set_mean("data", np.array([1, 2, 3]))
    result.set_input_scale("data", 0.5)
    return result


def test_preparation_in_its_order_and_back() -> None:
    image = RANDOM.rand(4, 5, 3).astype(np.float32)
    original = image.copy()
    found = transformer().preprocess("data", image)
    wanted = (image[:, :, ::-1].transpose(2, 0, 1) * 255 - np.reshape([1, 2, 3], (3, 1, 1))) / 2
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(image, original)
    np.testing.assert_allclose(transformer().deprocess("data", found), image, atol=1e-6)
    assert transformer().preprocess("data", RANDOM.rand(9, 9, 3)).shape == (3, 4, 5)


def test_preparation_refuses_what_does_not_fit() -> None:
    prepare = caffe.io.Transformer({"data": (2, 3, 4, 5)})
    with pytest.raises(Exception, match="not one of the net inputs"):
        prepare.set_raw_scale("image", 1)
    with pytest.raises(Exception, match="same number of dimensions"):
        prepare.set_transpose("data", (1, 0))
    with pytest.raises(Exception, match="same number of dimensions"):
        prepare.set_channel_swap("data", (1, 0))
    with pytest.raises(ValueError, match="channels incompatible"):
        prepare.set_mean("data", np.zeros(2))
    with pytest.raises(ValueError, match="Mean shape invalid"):
        prepare.set_mean("data", np.zeros((1, 3, 4, 5)))
    prepare.set_mean("data", RANDOM.rand(3, 8, 10))
    assert prepare.mean["data"].shape == (3, 4, 5)


# -- nets for images -------------------------------------------------------------------------------

MEANS = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
layer { name: "mean" type: "Pooling" bottom: "data" top: "mean"
  pooling_param { pool: AVE global_pooling: true } }
"""


def test_a_classifier_averages_ten_crops(tmp_path: Path) -> None:
    net = caffe.Classifier(
        write_net(tmp_path, MEANS), None, image_dims=(6, 6), raw_scale=255,
        channel_swap=(2, 1, 0), mean=np.array([1.0, 2, 3]),
    )  # fmt: skip
    images = [RANDOM.rand(6, 6, 3).astype(np.float32) for _ in range(3)]
    found = net.predict(images)
    assert found.shape == (3, 3)
    crops = caffe.io.oversample([images[1]], (4, 4))
    wanted = crops.mean((0, 1, 2))[::-1] * 255 - [1, 2, 3]
    np.testing.assert_allclose(found[1], wanted, rtol=1e-4)
    centre = net.predict(images, oversample=False)
    wanted = images[2][1:5, 1:5].mean((0, 1))[::-1] * 255 - [1, 2, 3]
    np.testing.assert_allclose(centre[2].ravel(), wanted, rtol=1e-4)


def test_a_detector_scores_windows(tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[4:12, 4:12] = 255
    path = str(tmp_path / "image.png")
    cv2.imwrite(path, pixels)
    net = caffe.Detector(write_net(tmp_path, MEANS), None, raw_scale=255)
    windows = [np.array([4, 4, 12, 12]), np.array([12, 12, 20, 20])]
    found = net.detect_windows([(path, windows)])
    assert [each["filename"] for each in found] == [path, path]
    np.testing.assert_allclose(found[0]["prediction"].ravel(), 255, rtol=1e-5)
    np.testing.assert_allclose(found[1]["prediction"].ravel(), 0, atol=1e-4)
    with pytest.raises(ImportError):
        net.detect_selective_search([path])


def test_a_detector_fills_context_outside_with_the_mean(tmp_path: Path) -> None:
    net = caffe.Detector(
        write_net(tmp_path, MEANS), None, raw_scale=255, channel_swap=(2, 1, 0), context_pad=1,
        mean=np.array([51.0, 102, 153])[:, None, None] * np.ones((3, 4, 4)),
    )  # fmt: skip
    crop = net.crop(np.ones((20, 20, 3), np.float32), np.array([0, 0, 7, 7]))
    assert crop.shape == (4, 4, 3)
    np.testing.assert_allclose(crop[0, 0], [0.6, 0.4, 0.2], rtol=1e-5)
    np.testing.assert_allclose(crop[-1, -1], 1, rtol=1e-5)


# -- pictures --------------------------------------------------------------------------------------


def test_a_net_is_drawn(tmp_path: Path) -> None:
    net = caffe_pb2.NetParameter()
    net.layer.add(name="data", type="Input", top=["data"]).include.add(phase=caffe.TEST)
    net.layer.add(name="other", type="Input", top=["data"]).include.add(phase=caffe.TRAIN)
    ip = net.layer.add(name="ip", type="InnerProduct", bottom=["data"], top=["ip"])
    ip.param.add(lr_mult=3)
    dot = caffe.draw.draw_net(net, "TB", "dot", caffe.TEST, display_lrm=True).decode()
    assert "rankdir=TB" in dot
    assert "other" not in dot
    assert "lr mult: 3.0, 1.0" in dot
    caffe.draw.draw_net_to_file(net, str(tmp_path / "net.png"), "LR")
    assert (tmp_path / "net.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="learning rate multiplier"):
        caffe.draw.get_layer_lr_mult(net.layer[0])
