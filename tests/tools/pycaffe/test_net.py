"""caffe.Net: blobs that can be written into, passes over a range of layers, reshaping, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cortado.tools import pycaffe as caffe
from support.pycaffe_nets import CONVOLUTION, TWO_LAYERS, write_net


@pytest.fixture
def net(tmp_path: Path) -> caffe.Net:
    caffe.set_random_seed(1)
    net = caffe.Net(write_net(tmp_path), caffe.TRAIN)
    net.blobs["data"].data[...] = np.random.RandomState(0).randn(4, 3)
    net.blobs["label"].data[...] = [0, 1, 2, 1]
    return net


# -- blobs -----------------------------------------------------------------------------------------


def test_blobs_are_there_before_the_first_forward(net: caffe.Net) -> None:
    assert list(net.blobs) == ["data", "label", "ip1", "ip2", "loss"]
    blob = net.blobs["ip2"]
    assert blob.shape == (4, 3)
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (4, 3, 1, 1, 12)
    for array in (blob.data, blob.diff):
        assert array.dtype == np.float32
        assert not array.any()


def test_a_held_array_shows_what_later_passes_compute(net: caffe.Net) -> None:
    held = net.blobs["ip2"].data
    net.forward()
    first = held.copy()
    assert first.any()
    net.blobs["data"].data[...] *= 2
    net.forward()
    assert not np.array_equal(held, first)
    assert np.shares_memory(held, net.blobs["ip2"].data)


def test_what_is_written_into_a_blob_is_what_forward_goes_on_with(net: caffe.Net) -> None:
    net.forward()
    net.blobs["ip1"].data[...] = 1
    result = net.forward(start="ip2", end="ip2")
    weight = net.params["ip2"][0].data
    assert list(result) == ["ip2"]
    np.testing.assert_allclose(result["ip2"], np.tile(weight.sum(1), (4, 1)), rtol=1e-5)


def test_what_is_written_into_a_parameter_counts(net: caffe.Net) -> None:
    net.params["ip2"][0].data[...] = 0
    net.params["ip2"][1].data[...] = [1, 2, 3]
    net.forward()
    np.testing.assert_array_equal(net.blobs["ip2"].data, np.tile([1, 2, 3], (4, 1)))


def test_a_layer_in_place_rewrites_its_blob(net: caffe.Net) -> None:
    net.forward(end="ip1")
    before = net.blobs["ip1"].data.copy()
    net.forward(start="relu")
    np.testing.assert_array_equal(net.blobs["ip1"].data, np.maximum(before, 0))


def test_writing_into_a_copied_top_leaves_its_bottom_alone(tmp_path: Path) -> None:
    text = (
        'layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 } } }'
        'layer { name: "drop" type: "Dropout" bottom: "x" top: "y" }'
    )
    net = caffe.Net(write_net(tmp_path, text), caffe.TEST)
    net.blobs["x"].data[...] = 3
    net.forward()
    net.blobs["y"].data[...] = 7
    assert net.blobs["x"].data.tolist() == [3, 3]


def test_writing_into_one_of_two_equal_gradients_leaves_the_other_alone(tmp_path: Path) -> None:
    text = (
        "force_backward: true "
        'layer { name: "data" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 } } }'
        'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "y" }'
    )
    net = caffe.Net(write_net(tmp_path, text), caffe.TEST)
    net.forward()
    net.blobs["y"].diff[...] = 2
    net.backward()
    net.blobs["a"].diff[...] = 0
    assert net.blobs["b"].diff.tolist() == [2, 2]
    assert net.blobs["y"].diff.tolist() == [2, 2]


# -- backward --------------------------------------------------------------------------------------


def test_gradients_agree_with_differences(net: caffe.Net) -> None:
    net.forward()
    net.backward()
    blob, index = net.params["ip1"][0], (2, 1)
    gradient = float(blob.diff[index])
    losses = []
    for step in (1e-2, -2e-2):
        blob.data[index] += step
        losses.append(float(net.forward()["loss"]))
    assert gradient == pytest.approx((losses[0] - losses[1]) / 2e-2, rel=2e-2, abs=1e-4)


def test_parameter_diffs_add_up_and_blob_diffs_are_overwritten(net: caffe.Net) -> None:
    net.forward()
    net.backward()
    held = net.params["ip1"][0].diff
    parameter, blob = held.copy(), net.blobs["ip1"].diff.copy()
    net.forward()
    net.backward()
    np.testing.assert_allclose(held, 2 * parameter, rtol=1e-5)
    np.testing.assert_allclose(net.blobs["ip1"].diff, blob, rtol=1e-6)
    net.clear_param_diffs()
    assert not held.any()
    assert np.shares_memory(held, net.params["ip1"][0].diff)


def test_backward_begins_at_a_written_diff(net: caffe.Net) -> None:
    net.forward()
    net.blobs["ip2"].diff[...] = 0
    net.blobs["ip2"].diff[:, 1] = 1
    found = net.backward(start="ip2", end="ip2")
    assert list(found) == ["ip1"]
    np.testing.assert_allclose(found["ip1"], np.tile(net.params["ip2"][0].data[1], (4, 1)))


def test_backward_may_come_more_than_once_and_before_forward(net: caffe.Net) -> None:
    net.blobs["ip2"].diff[...] = 1
    net.backward(start="ip2", end="ip2")
    assert net.blobs["ip1"].diff.any()
    net.forward()
    results = []
    for label in range(3):
        net.blobs["ip2"].diff[...] = 0
        net.blobs["ip2"].diff[:, label] = 1
        net.backward(start="ip2")
        results.append(net.blobs["ip1"].diff.copy())
    assert not np.array_equal(results[0], results[1])


def test_the_data_get_a_gradient_only_if_asked_for(tmp_path: Path, net: caffe.Net) -> None:
    net.forward()
    assert not net.backward()["data"].any()
    forced = caffe.Net(write_net(tmp_path, TWO_LAYERS, "force_backward: true"), caffe.TRAIN)
    forced.blobs["data"].data[...] = 1
    forced.forward()
    assert forced.backward(diffs=["ip2"])["data"].any()


def test_the_diff_of_a_loss_is_its_weight(net: caffe.Net) -> None:
    assert net.blobs["loss"].diff == 1
    assert net.blob_loss_weights["loss"] == 1
    net.forward()
    net.backward()
    once = net.blobs["ip2"].diff.copy()
    net.blobs["loss"].diff[...] = 3
    net.backward()
    np.testing.assert_allclose(net.blobs["ip2"].diff, 3 * once, rtol=1e-5)


# -- the rest of the interface ---------------------------------------------------------------------


def test_names_and_lists(net: caffe.Net) -> None:
    assert net.inputs == ["data", "label"]
    assert net.outputs == ["loss"]
    assert list(net.params) == ["ip1", "ip2"]
    assert [layer.type for layer in net.layers] == [
        "Input", "InnerProduct", "ReLU", "InnerProduct", "SoftmaxWithLoss",
    ]  # fmt: skip
    assert net.layer_dict["ip1"].blobs[0].shape == (5, 3)
    assert net.bottom_names["loss"] == ["ip2", "label"]
    assert net.top_names["data"] == ["data", "label"]
    assert net._bottom_ids(4) == [3, 1]
    assert net._top_ids(4) == [4]
    assert (net._inputs, net._outputs) == ([0, 1], [4])


def test_callbacks_are_called_with_the_layer(net: caffe.Net) -> None:
    calls: list[tuple[str, int]] = []
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, name)(lambda index, name=name: calls.append((name, index)))
    net.forward(start="ip2", end="loss")
    net.backward(start="loss", end="loss")
    assert calls == [
        ("before_forward", 3), ("after_forward", 3), ("before_forward", 4), ("after_forward", 4),
        ("before_backward", 4), ("after_backward", 4),
    ]  # fmt: skip


def test_inputs_by_keyword_must_be_all_of_them_and_a_batch(net: caffe.Net) -> None:
    data, label = np.ones((4, 3), np.float32), np.zeros(4, np.float32)
    net.forward(data=data, label=label)
    np.testing.assert_array_equal(net.blobs["data"].data, data)
    with pytest.raises(Exception, match="do not match net inputs"):
        net.forward(data=data)
    with pytest.raises(Exception, match="not batch sized"):
        net.forward(data=data[:2], label=label)
    with pytest.raises(Exception, match="do not match net outputs"):
        net.backward(ip2=data)
    with pytest.raises(ValueError, match="nowhere"):
        net.forward(start="nowhere")
    with pytest.raises(KeyError):
        net.blobs["nowhere"]


def test_forward_all_takes_any_number(tmp_path: Path) -> None:
    text = (
        'layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 4 dim: 2 } } }'
        'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { scale: 3 } }'
    )
    net = caffe.Net(write_net(tmp_path, "force_backward: true " + text), caffe.TEST)
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    found = net.forward_all(blobs=["x"], x=values)
    np.testing.assert_allclose(found["y"], 3 * values)
    np.testing.assert_allclose(found["x"], values)
    data, diffs = net.forward_backward_all(x=values, y=values)
    np.testing.assert_allclose(data["y"], 3 * values)
    np.testing.assert_allclose(diffs["x"], 3 * values)


def test_reshape_follows_the_inputs(tmp_path: Path) -> None:
    net = caffe.Net(write_net(tmp_path, CONVOLUTION), caffe.TEST)
    weight = net.params["conv"][0].data.copy()
    net.blobs["data"].reshape(2, 3, 20, 16)
    assert net.blobs["pool"].shape == (1, 4, 5, 5)
    net.reshape()
    assert net.blobs["conv"].data.shape == (2, 4, 18, 14)
    assert net.blobs["pool"].shape == (2, 4, 9, 7)
    assert net.forward()["pool"].shape == (2, 4, 9, 7)
    np.testing.assert_array_equal(net.params["conv"][0].data, weight)
    net.blobs["data"].reshape(1, 3, 8, 8)
    net.layer_dict["conv"].reshape([], [])
    assert net.blobs["conv"].shape == (1, 4, 6, 6)


def test_a_reshaped_blob_keeps_its_first_values(net: caffe.Net) -> None:
    before = net.blobs["data"].data.copy()
    net.blobs["data"].reshape(2, 6)
    np.testing.assert_array_equal(net.blobs["data"].data, before.reshape(2, 6))


# -- files and sharing -----------------------------------------------------------------------------


@pytest.mark.parametrize(("save", "load"), [("save", "copy_from"), ("save_hdf5", "load_hdf5")])
def test_weights_go_to_a_file_and_back(
    net: caffe.Net, tmp_path: Path, save: str, load: str
) -> None:
    getattr(net, save)(str(tmp_path / "weights"))
    other = caffe.Net(write_net(tmp_path), caffe.TEST)
    getattr(other, load)(str(tmp_path / "weights"))
    for name, blobs in net.params.items():
        for mine, theirs in zip(blobs, other.params[name], strict=True):
            np.testing.assert_array_equal(mine.data, theirs.data)


def test_all_forms_of_the_constructor(net: caffe.Net, tmp_path: Path) -> None:
    path, weights = write_net(tmp_path), str(tmp_path / "w.caffemodel")
    net.save(weights)
    for other in (
        caffe.Net(path, caffe.TEST, weights=weights),
        caffe.Net(path, weights, caffe.TEST),
        caffe.Net(network_file=path, phase=caffe.TEST, weights=weights, level=0, stages=[]),
    ):
        np.testing.assert_array_equal(other.params["ip1"][0].data, net.params["ip1"][0].data)


def test_shared_parameters_are_one_memory(net: caffe.Net, tmp_path: Path) -> None:
    other = caffe.Net(write_net(tmp_path), caffe.TEST)
    other.share_with(net)
    net.params["ip1"][0].data[...] = 5
    assert (other.params["ip1"][0].data == 5).all()


def test_what_caffe_refuses_is_a_runtime_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Could not open file"):
        caffe.Net(str(tmp_path / "none.prototxt"), caffe.TEST)
    with pytest.raises(RuntimeError, match="Could not open file"):
        caffe.Net(write_net(tmp_path), caffe.TEST, weights=str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match="Convolutio"):
        caffe.Net(write_net(tmp_path, 'layer { name: "c" type: "Convolutio" }'), caffe.TEST)
    net = caffe.Net(write_net(tmp_path), caffe.TEST)
    net.blobs["data"].reshape(4, 7)
    with pytest.raises(RuntimeError, match="ip1"):
        net.forward()


def test_memory_data_takes_arrays(tmp_path: Path) -> None:
    text = (
        'layer { name: "m" type: "MemoryData" top: "data" top: "label" '
        "memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 } }"
        'layer { name: "s" type: "Silence" bottom: "label" }'
    )
    net = caffe.Net(write_net(tmp_path, text), caffe.TEST)
    data = np.arange(16, dtype=np.float32).reshape(4, 1, 2, 2)
    net.set_input_arrays(data, np.arange(4, dtype=np.float32))
    net.forward()
    net.forward()
    np.testing.assert_array_equal(net.blobs["data"].data, data[2:])
    assert net.blobs["label"].data.ravel().tolist() == [2, 3]
    labels = np.zeros(3, np.float32)
    for bad, problem in (
        (data.astype(np.float64), "float32"),
        (data[:, :, ::2], "C contiguous"),
        (data[:, 0], "4-d"),
        (data[:3], "multiple"),
    ):
        with pytest.raises(RuntimeError, match=problem):
            net.set_input_arrays(bad, labels)


def test_set_input_arrays_is_for_memory_data(net: caffe.Net) -> None:
    with pytest.raises(RuntimeError, match="MemoryDataLayer"):
        net.set_input_arrays(np.zeros((4, 1, 1, 1), np.float32), np.zeros(4, np.float32))
