"""Preprocessing that travels with weights gives what the data layer gave, through one code path."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.layers.data.mean import write_mean
from cortado.layers.data.preprocessing import Preprocessing, Views
from cortado.layers.data.transform import read_mean
from cortado.netdef import Net
from cortado.netdef.weights import recorded
from cortado.proto import caffe_pb2
from cortado.proto.errors import DataError, SnapshotError
from cortado.proto.text import parse
from cortado.proto.weights import read_preprocessing
from cortado.solvers import Solver
from cortado.tools.pycaffe.io import oversample

NET = """
layer {{ name: "data" type: "{kind}" top: "data" top: "label"
  transform_param {{ {transform} }} {source} }}
layer {{ name: "score" type: "InnerProduct" bottom: "data" top: "score"
  inner_product_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label"
  top: "loss" }}
"""
DEPLOY = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}
layer {{ name: "score" type: "InnerProduct" bottom: "data" top: "score"
  inner_product_param {{ num_output: 5 }} }}
"""
IMAGES = 4
TRANSFORMS = [
    "crop_size: 12 mean_value: 100 mean_value: 110 mean_value: 120 scale: 0.02",
    'crop_size: 10 mean_file: "mean.binaryproto"',
    "resize_side: 14 crop_size: 12 scale: 0.01",
    "resize_height: 9 resize_width: 11",
    "resize_side: 14 crop_size: 12 force_gray: true mean_value: 99",
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Images as files, and in databases of encoded and raw records."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(2)
    paths = []
    with LmdbWriter(tmp_path / "encoded") as encoded, LmdbWriter(tmp_path / "raw") as raw:
        for number in range(IMAGES):
            pixels = generator.integers(0, 256, (16, 20, 3), np.uint8)
            path = tmp_path / f"{number}.png"
            cv2.imwrite(str(path), pixels)
            paths.append(path)
            datum = caffe_pb2.Datum(data=path.read_bytes(), encoded=True, label=number)
            encoded.put(b"%d" % number, datum.SerializeToString())
            planes = pixels.transpose(2, 0, 1)
            datum = caffe_pb2.Datum(
                channels=3, height=16, width=20, data=planes.tobytes(), label=number
            )
            raw.put(b"%d" % number, datum.SerializeToString())
    mean = generator.random((3, 16, 20), np.float32) * 255
    write_mean(mean, tmp_path / "mean.binaryproto")
    return paths


def of_weights(path: Path | str) -> Preprocessing:
    (message,) = read_preprocessing(path)
    return Preprocessing.from_message(message)


def net_text(transform: str, database: str) -> str:
    source = f'data_param {{ source: "{database}" backend: LMDB batch_size: {IMAGES} }}'
    return NET.format(kind="Data", transform=transform, source=source)


def training(transform: str, database: str = "encoded", solver: str = "") -> Solver:
    document = parse(
        f'net_param {{ {net_text(transform, database)} }} base_lr: 0.01 lr_policy: "fixed" '
        f'max_iter: 2 random_seed: 1 snapshot_prefix: "run" solver_mode: CPU {solver}',
        caffe_pb2.SolverParameter,
    )
    return Solver(document, device="cpu")


def deploy(shape: tuple[int, ...], weights: Path) -> Net:
    dims = " ".join(f"dim: {size}" for size in (IMAGES, *shape))
    text = DEPLOY.format(dims=dims)
    return Net(parse(text, caffe_pb2.NetParameter), "TEST", weights=weights)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("snapshot_format", ["BINARYPROTO", "HDF5"])
def test_logits_are_those_through_the_data_layer(
    files: list[Path], transform: str, snapshot_format: str
) -> None:
    solver = training(f"{transform} mirror: true", solver=f"snapshot_format: {snapshot_format}")
    solver.solve()
    (weights,) = Path().glob("run_iter_2.caffemodel*")
    tested = Net(
        parse(net_text(transform, "encoded"), caffe_pb2.NetParameter), "TEST", weights=weights
    )
    batch = tested.next_batch()
    tested.keep_blobs = True
    tested(**batch)
    wanted = tested.blobs["score"]
    tested.close()
    preprocessing = of_weights(weights)
    assert preprocessing.blob == "data"
    inputs = preprocessing.batch(files)
    assert torch.equal(inputs, batch["data"])
    with torch.no_grad():
        logits = deploy(preprocessing.shape, weights)(data=inputs)["score"]
    assert torch.equal(logits, wanted)


def test_arrays_and_bytes_are_taken_too(files: list[Path]) -> None:
    net = Net(parse(net_text(TRANSFORMS[0], "encoded"), caffe_pb2.NetParameter), "TEST")
    net.save("net.caffemodel")
    net.close()
    preprocessing = of_weights("net.caffemodel")
    wanted = preprocessing(files[0])
    pixels = cv2.imread(str(files[0]))
    assert torch.equal(preprocessing(files[0].read_bytes()), wanted)
    assert torch.equal(preprocessing(pixels), wanted)
    assert torch.equal(preprocessing(pixels[:, :, ::-1], order="RGB"), wanted)
    grey = pixels[:, :, 0]
    assert torch.equal(preprocessing(grey), preprocessing(np.stack([grey] * 3, axis=2)))


def test_raw_records_may_be_rgb(files: list[Path]) -> None:
    text = net_text(f'{TRANSFORMS[3]} channel_order: "RGB"', "raw")
    net = Net(parse(text, caffe_pb2.NetParameter), "TEST")
    batch = net.next_batch()["data"]
    net.save("net.caffemodel")
    net.close()
    preprocessing = of_weights("net.caffemodel")
    assert preprocessing.channel_order == "RGB"
    # The records are BGR in truth: read as RGB they are the files with red and blue exchanged.
    exchanged = [cv2.imread(str(path))[:, :, ::-1] for path in files]
    assert torch.equal(preprocessing.batch(exchanged), batch)


def test_a_list_of_images_tells_its_size(files: list[Path]) -> None:
    Path("list.txt").write_text("".join(f"{path.name} 0\n" for path in files))
    text = NET.format(
        kind="ImageData",
        transform="crop_size: 8",
        source='image_data_param { source: "list.txt" batch_size: 4 new_height: 10 new_width: 9 }',
    )
    net = Net(parse(text, caffe_pb2.NetParameter), "TEST")
    batch = net.next_batch()["data"]
    message = net.to_message().preprocessing[0]
    net.close()
    assert torch.equal(Preprocessing.from_message(message).batch(files), batch)
    assert Preprocessing.from_message(message).to_message() == message


def test_random_crops_become_the_usual_centre_crop(files: list[Path]) -> None:
    text = net_text("crop_size: 7 augment { crop_area: 0.1 crop_area: 1 }", "encoded")
    net = Net(parse(text, caffe_pb2.NetParameter), "TRAIN")
    message = net.to_message().preprocessing[0]
    net.close()
    assert (message.resize_side, message.crop_size) == (8, 7)
    assert Preprocessing.from_message(message)(files[0]).shape == (3, 7, 7)


def test_files_of_another_size_become_as_large_as_the_records(files: list[Path]) -> None:
    net = Net(parse(net_text("", "raw"), caffe_pb2.NetParameter), "TEST")
    net.save("net.caffemodel")
    net.close()
    preprocessing = of_weights("net.caffemodel")
    assert preprocessing.image_size == (16, 20)
    large = cv2.resize(cv2.imread(str(files[0])), (40, 30))
    wanted = cv2.resize(large, (20, 16)).transpose(2, 0, 1)  # as convert_imageset would store it
    assert torch.equal(preprocessing(large), torch.from_numpy(wanted).float())


def test_what_does_not_fit_is_refused(files: list[Path]) -> None:
    net = Net(parse(net_text("crop_size: 12", "encoded"), caffe_pb2.NetParameter), "TEST")
    net.save("net.caffemodel")
    net.close()
    preprocessing = of_weights("net.caffemodel")
    with pytest.raises(DataError, match=r"crop_size 12 is larger than the image of 5x5"):
        preprocessing(np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(DataError, match=r"an input of \(2, 12, 12\).*needs \(3, 12, 12\)"):
        preprocessing(np.zeros((12, 14, 2), np.uint8))
    with pytest.raises(SnapshotError, match="must be weights"):
        of_weights(files[0])


def test_safetensors_beside_a_snapshot_say_it_too(files: list[Path]) -> None:
    training(TRANSFORMS[1], solver="snapshot_safetensors: true").solve()
    (message,) = read_preprocessing("run_iter_2.caffemodel")
    assert recorded("run_iter_2.safetensors") == [message]
    assert message.HasField("mean_image")


def test_a_scale_for_each_channel() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8)
    message = caffe_pb2.Preprocessing(
        blob="data", channels=3, height=4, width=4, channel_order="RGB",
        mean_value=[10, 20, 30], scale_value=[0.1, 0.2, 0.3],
    )  # fmt: skip
    preprocessing = Preprocessing.from_message(message)
    wanted = (pixels[:, :, ::-1] - np.float32([10, 20, 30])) * np.float32([0.1, 0.2, 0.3])
    found = preprocessing(pixels)  # given as BGR
    np.testing.assert_allclose(found.numpy(), wanted.transpose(2, 0, 1), rtol=1e-6)
    stored = preprocessing.to_message()
    assert list(stored.scale_value) == list(message.scale_value)
    message.scale_value.pop()
    with pytest.raises(DataError, match=r"2 values of scale .* 3 channels"):
        Preprocessing.from_message(message)(pixels)


def test_ten_crops_are_corners_and_centre_and_their_mirrors() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 8, 3), np.uint8)
    message = caffe_pb2.Preprocessing(
        blob="data", channels=3, height=5, width=5, channel_order="BGR", crop_size=5
    )
    preprocessing = Preprocessing.from_message(message)
    wanted = oversample([pixels], (5, 5)).transpose(0, 3, 1, 2)  # as in Caffe's Python
    found = preprocessing.views(pixels, Views(10))
    assert torch.equal(found, torch.from_numpy(np.ascontiguousarray(wanted)))
    both = preprocessing.views(pixels, Views(flip=True))
    assert torch.equal(both, found[[4, 9]])
    assert torch.equal(preprocessing.views(pixels, Views()), preprocessing(pixels)[None])
    assert [Views(10).count, Views(flip=True).count, Views().count] == [10, 2, 1]


def test_each_crop_has_its_window_of_the_mean(files: list[Path]) -> None:
    text = net_text('crop_size: 10 mean_file: "mean.binaryproto"', "raw")
    net = Net(parse(text, caffe_pb2.NetParameter), "TEST")
    net.save("net.caffemodel")
    net.close()
    mean = read_mean("mean.binaryproto")
    pixels = cv2.imread(str(files[0])).transpose(2, 0, 1).astype(np.float32) - mean
    found = of_weights("net.caffemodel").views(files[0], Views(10))
    assert torch.equal(found[3], torch.from_numpy(pixels[:, 6:, 10:].copy()))
    assert torch.equal(found[8], found[3].flip(2))


def test_caffes_own_weights_say_nothing(tmp_path: Path) -> None:
    message = caffe_pb2.NetParameter(name="caffe")
    message.layer.add(name="a", type="ReLU")
    (tmp_path / "caffe.caffemodel").write_bytes(message.SerializeToString())
    assert read_preprocessing(tmp_path / "caffe.caffemodel") == []


def test_a_net_checks_labels_against_its_classes(files: list[Path]) -> None:
    text = net_text("", "encoded").replace("num_output: 5", "num_output: 3")
    net = Net(parse(text, caffe_pb2.NetParameter), "TRAIN")
    with pytest.raises(DataError, match=r"record '3'.*label 3 is out of range.*3 classes"):
        net.next_batch()
    net.close()
    text = text.replace('loss" type', 'loss" loss_param { ignore_label: 3 } type')
    net = Net(parse(text, caffe_pb2.NetParameter), "TRAIN")
    net.next_batch()
    net.close()


def test_the_loss_takes_mixed_labels(files: list[Path]) -> None:
    augment = "augment { mixup_alpha: 0.3 cutmix_alpha: 1 num_classes: 5 }"
    solver = training(f"crop_size: 8 {augment}")
    solver.solve()
    net = solver.net
    net.keep_blobs = True
    batch = net.next_batch()
    net(**batch)
    wanted = torch.nn.functional.cross_entropy(net.blobs["score"], batch["label"])
    torch.testing.assert_close(net.loss, wanted)
    net.close()
