"""Weights and solver states: Caffe's own files, byte for byte, and broken ones."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cortado.proto import caffe_pb2, files, wire
from cortado.proto import state as state_module
from cortado.proto import weights as weights_module
from cortado.proto.errors import SnapshotError
from cortado.proto.state import SolverSnapshot, read_state, write_state, write_state_hdf5
from cortado.proto.weights import (
    LayerBlobs,
    read_net_message,
    read_weights,
    write_weights,
    write_weights_hdf5,
)
from cortado.proto.wire import BlobArray

GOLDENS = Path(__file__).parent.parent / "goldens" / "proto"
MODEL = GOLDENS / "tiny_conv_diff_iter_3.caffemodel"
STATE = GOLDENS / "tiny_conv_diff_iter_3.solverstate"
Net = caffe_pb2.NetParameter


def arrays(layers: Any) -> dict[str, np.ndarray]:
    return {
        f"{kind}/{layer.name}/{index}": array
        for layer in layers
        for index, blob in enumerate(layer.blobs)
        for kind, array in (("param", blob.data), ("diff", blob.diff))
        if array is not None
    }


@pytest.mark.parametrize("name", ["tiny_conv_diff", "tiny_shared_h5", "v1_legacy"])
def test_reads_what_caffe_wrote(name: str) -> None:
    (path,) = [p for p in GOLDENS.glob(f"{name}*") if ".caffemodel" in p.name]
    wanted = np.load(GOLDENS / f"{name}.npz")
    found = arrays(read_weights(path))
    if name == "tiny_shared_h5":
        found |= {key.replace("fa", "fb"): array for key, array in found.items()}
    assert found.keys() == {key for key in wanted if key.startswith(("param", "diff"))}
    for key, array in found.items():
        assert array.dtype == np.float32
        assert array.flags.owndata or array.base.flags.owndata
        np.testing.assert_array_equal(array.reshape(wanted[key].shape), wanted[key])


def test_legacy_blobs_are_marked_and_typed_by_their_new_names() -> None:
    weights = read_weights(GOLDENS / "v1_legacy.caffemodel")
    assert [(layer.name, layer.type) for layer in weights] == [
        ("conv1", "Convolution"),
        ("ip1", "InnerProduct"),
    ]
    assert all(blob and blob.legacy_shape for layer in weights for blob in layer.blobs)
    assert [layer.name for layer in read_net_message(weights.path).layers] == ["conv1", "ip1"]


@pytest.mark.parametrize("name", ["tiny_conv_diff", "tiny_conv_bp"])
def test_writes_the_bytes_that_caffe_wrote(name: str, tmp_path: Path) -> None:
    model = GOLDENS / f"{name}_iter_3.caffemodel"
    write_weights(tmp_path / "m", read_net_message(model), list(read_weights(model)))
    assert (tmp_path / "m").read_bytes() == model.read_bytes()
    state = GOLDENS / f"{name}_iter_3.solverstate"
    write_state(tmp_path / "s", read_state(state))
    assert (tmp_path / "s").read_bytes() == state.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "s"]


def test_protobuf_reads_the_same_numbers() -> None:
    net = files.read_message(MODEL, Net)
    for layer, ours in zip(net.layer, read_weights(MODEL), strict=True):
        for blob, array in zip(layer.blobs, ours.blobs, strict=True):
            assert array is not None
            assert list(blob.data) == array.data.ravel().tolist()
            assert tuple(blob.shape.dim) == array.data.shape


def test_history_is_as_caffe_had_it() -> None:
    wanted = np.load(GOLDENS / "tiny_conv_diff.npz")
    state = read_state(STATE)
    assert state.iter == wanted["iter"]
    assert state.learned_net == "tiny_conv_diff_iter_3.caffemodel"
    assert len(state.history) == sum(key.startswith("history/") for key in wanted)
    for index, array in enumerate(state.history):
        np.testing.assert_array_equal(array, wanted[f"history/{index}"])
    other = read_state(GOLDENS / "tiny_shared_h5_iter_3.solverstate.h5")
    assert (other.iter, other.current_step, len(other.history)) == (3, 1, 2)
    assert other.learned_net == "tiny_shared_h5_iter_3.caffemodel.h5"


@pytest.mark.parametrize("write", [write_state, write_state_hdf5])
def test_own_values_come_back_and_stock_fields_stay(write: Any, tmp_path: Path) -> None:
    extra = {"a": -3, "b": 2.5, "c": "caf\u00e9", "d": b"\0\xff\0", "e": b"", "f": ""}
    history = [np.arange(6, dtype=np.float32).reshape(2, 3), np.float32([[1]]), np.zeros(0, "f4")]
    write(tmp_path / "s", SolverSnapshot(7, "x.caffemodel", 2, history, extra))
    back = read_state(tmp_path / "s")
    assert (back.iter, back.learned_net, back.current_step) == (7, "x.caffemodel", 2)
    assert back.extra == extra
    assert [a.shape for a in back.history] == [(2, 3), (1, 1), (0,)]
    np.testing.assert_array_equal(back.history[0], history[0])


def test_hdf5_string_ends_in_a_zero_byte_as_caffe_needs_it(tmp_path: Path) -> None:
    """Caffe gives the string no end of its own and otherwise reads what lies behind it."""
    write_state_hdf5(tmp_path / "s.h5", SolverSnapshot(7, "x.caffemodel.h5"))
    for path in (tmp_path / "s.h5", GOLDENS / "tiny_shared_h5_iter_3.solverstate.h5"):
        with h5py.File(path) as file:
            kind, text = file["learned_net"].id.get_type(), file["learned_net"][()]
            assert kind.get_size() == len(text) + 1
            assert kind.get_strpad() == h5py.h5t.STR_NULLTERM


def test_hdf5_round_trip_with_diffs_gaps_and_slashes(tmp_path: Path) -> None:
    blob = BlobArray(np.float32([[1, 2]]), diff=np.float32([[3, 4]]))
    layers = [
        LayerBlobs("inception/1x1", "", [blob, None, blob]),
        LayerBlobs("inception", "", [blob]),
        LayerBlobs("relu", "", []),
    ]
    write_weights_hdf5(tmp_path / "w.h5", layers)
    back = {layer.name: layer.blobs for layer in read_weights(tmp_path / "w.h5")}
    assert {name: [b is not None for b in blobs] for name, blobs in back.items()} == {
        "inception/1x1": [True, False, True],
        "inception": [True],
        "relu": [],
    }
    found = back["inception"][0]
    assert found is not None
    np.testing.assert_array_equal(found.diff, blob.diff)


def unpacked(field: int, values: list[float], kind: str) -> bytes:
    code = wire.FIXED32 if kind == "<f4" else wire.FIXED64
    return b"".join(bytes([field << 3 | code]) + np.array(v, kind).tobytes() for v in values)


def in_net(blob: bytes) -> bytes:
    layer = b"\x0a\x01a" + wire.delimited(7, len(blob)) + blob
    return b"\x0a\x01n" + wire.delimited(100, len(layer)) + layer


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9),
    st.sampled_from([(5, "<f4"), (8, "<f8")]),
    st.booleans(),
    st.booleans(),
)
def test_unpacked_split_and_double_numbers(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[float], field: tuple[int, str], legacy: bool, split: bool,
) -> None:  # fmt: skip
    number, kind = field
    data = unpacked(number, values, kind)
    if split:  # the second half packed
        half = len(values) // 2
        rest = np.array(values[half:], kind).tobytes()
        data = unpacked(number, values[:half], kind) + wire.delimited(number, len(rest)) + rest
    shape = caffe_pb2.BlobProto(shape={"dim": [len(values)]})
    if legacy:
        shape = caffe_pb2.BlobProto(num=1, channels=1, height=1, width=len(values))
    path = tmp_path_factory.mktemp("w") / "w"
    path.write_bytes(in_net(data + shape.SerializeToString()))
    (layer,) = read_weights(path)
    (blob,) = layer.blobs
    assert blob is not None
    assert blob.data.shape == ((1, 1, 1, len(values)) if legacy else (len(values),))
    np.testing.assert_array_equal(blob.data.ravel(), np.float32(values))
    assert files.read_message(path, Net).layer[0].name == "a"  # a net for protobuf as well


def test_every_cut_of_a_file_is_refused_or_shorter(tmp_path: Path) -> None:
    whole = MODEL.read_bytes()
    path = tmp_path / "cut"
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with contextlib.suppress(SnapshotError):
            assert len(read_weights(path)) < 9 or size > 4300


def test_cut_file_says_how_much_is_missing(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(MODEL.read_bytes()[:-100])
    with pytest.raises(SnapshotError, match=r"needs \d+ bytes more: it is cut off"):
        read_weights(tmp_path / "cut")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2000))
@example(b"\0", 416)  # inside the shape of a blob
def test_noise_is_refused_or_read_but_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int
) -> None:
    path = tmp_path_factory.mktemp("n") / "w"
    whole = MODEL.read_bytes()
    path.write_bytes(whole[:place] + noise + whole[place + len(noise) :])
    for read in (read_weights, read_state):
        with contextlib.suppress(SnapshotError):  # any other error is a fault
            read(path)


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return content.getvalue()


class Canary:
    """Unpickling this would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of a pickle ran",))


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "an empty file"),
        (zipped(), r"a ZIP archive, as PyTorch \(.pth\)"),
        (pickle.dumps(Canary()), "a Python pickle"),
        (b'name: "net"\nlayer { }\n', "text"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (STATE.read_bytes(), r"a solver state \(.solverstate\); it belongs to --snapshot"),
        (caffe_pb2.BlobProto(num=1, channels=3, data=[1]).SerializeToString(), "a single blob"),
        (b"\xff\xff\xff\xff", "no format"),
        (b"\x89HDF\r\n\x1a\n broken", "damaged or cut off"),
        (in_net(b"\x2a\x05abcde"), "layer 'a', blob 0: the numbers at byte .* are not whole"),
        (in_net(b"\x2a\x04abcd\x3a\x02\x0a\x00"), None),
        (in_net(b"\x2a\x04abcd\x3a\x03\x0a\x01\x05"), r"shape \(5,\) must have 5 values, got 1"),
    ],
)
def test_what_is_no_weights_is_named(tmp_path: Path, content: bytes, wanted: str | None) -> None:
    path = tmp_path / "w.caffemodel"
    path.write_bytes(content)
    if wanted is None:  # a scalar
        (layer,) = read_weights(path)
        assert [blob.data.shape for blob in layer.blobs if blob] == [()]
        return
    with pytest.raises(SnapshotError, match=wanted) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(SnapshotError, match=r"no such file|is a directory") as caught:
            read_weights(path)
        assert str(path) in str(caught.value)


def test_weights_given_as_state_are_named() -> None:
    with pytest.raises(SnapshotError, match=r"must be a solver state .* it belongs to --weights"):
        read_state(MODEL)
    with pytest.raises(SnapshotError, match="weights; they belong to --weights"):
        read_state(GOLDENS / "tiny_shared_h5_iter_3.caffemodel.h5")
    with pytest.raises(SnapshotError, match="a solver state; it belongs to --snapshot"):
        read_weights(GOLDENS / "tiny_shared_h5_iter_3.solverstate.h5")


def test_hdf5_links_are_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_group("data/a")["0"] = h5py.ExternalLink("/etc/other.h5", "/x")
    with pytest.raises(SnapshotError, match="is a link"):
        read_weights(tmp_path / "w.h5")


def test_too_large_for_protobuf_is_refused_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (weights_module, state_module):
        assert module.MAX_BINARY_BYTES == 2**31 - 1
        monkeypatch.setattr(module, "MAX_BINARY_BYTES", 2000)
    with pytest.raises(SnapshotError, match=r"take 4,400 bytes; .* at most 2,000; write HDF5"):
        write_weights(tmp_path / "m", read_net_message(MODEL), list(read_weights(MODEL)))
    with pytest.raises(SnapshotError, match=r"take 4,104 bytes; .* at most 2,000; write HDF5"):
        write_state(tmp_path / "s", read_state(STATE))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"old")
    net = Net(name="n")
    net.layer.add(name="a")
    bad = BlobArray(np.array(["x"], object))
    with pytest.raises((ValueError, TypeError)):
        write_weights(path, net, [LayerBlobs("a", "", [bad])])
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
