"""``caffe.io``: images, their preparation for a net, and arrays in protobuf messages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from ...proto import caffe_pb2
from .resize import resize_image
from .transformer import Transformer

__all__ = [
    "Transformer", "array_to_blobproto", "array_to_datum", "arraylist_to_blobprotovector_str",
    "blobproto_to_array", "blobprotovector_str_to_arraylist", "caffe_pb2", "datum_to_array",
    "load_image", "oversample", "resize_image",
]  # fmt: skip

_LEGACY = ("num", "channels", "height", "width")
#: How much red, green and blue count in a grey image (ITU-R BT.709, as in scikit-image).
_LUMA = np.array([0.2125, 0.7154, 0.0721], np.float32)


# -- protobuf messages -----------------------------------------------------------------------------


def blobproto_to_array(blob: caffe_pb2.BlobProto, return_diff: bool = False) -> np.ndarray:
    """The data (or diff) of a BlobProto as an array of float64 in its shape.

    ValueError if the message's shape is not that of its values.
    """
    packed, double = (blob.diff, blob.double_diff) if return_diff else (blob.data, blob.double_data)
    values = np.array(packed if packed else double, np.float64)
    if any(blob.HasField(name) for name in _LEGACY):
        return values.reshape([getattr(blob, name) for name in _LEGACY])
    return values.reshape(list(blob.shape.dim))


def array_to_blobproto(arr: np.ndarray, diff: np.ndarray | None = None) -> caffe_pb2.BlobProto:
    """A BlobProto with the values of ``arr`` and, if given, of ``diff`` in the same shape."""
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(np.asarray(arr, np.float64).ravel())
    if diff is not None:
        blob.diff.extend(np.asarray(diff, np.float64).ravel())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[np.ndarray]) -> bytes:
    """Arrays as the bytes of a BlobProtoVector."""
    vector = caffe_pb2.BlobProtoVector(blobs=[array_to_blobproto(each) for each in arraylist])
    return vector.SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[np.ndarray]:
    """The arrays in the bytes of a BlobProtoVector."""
    return [blobproto_to_array(blob) for blob in caffe_pb2.BlobProtoVector.FromString(str).blobs]


def array_to_datum(arr: np.ndarray, label: int | None = None) -> caffe_pb2.Datum:
    """A Datum of a (channels, height, width) array: bytes for uint8, else floats.

    ValueError for other shapes.
    """
    if arr.ndim != 3:
        raise ValueError(f"Incorrect array shape. It must have 3 axes, got {arr.shape}")
    channels, height, width = arr.shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width)
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(np.asarray(arr, np.float64).ravel())
    if label is not None:
        datum.label = int(label)
    return datum


def datum_to_array(datum: caffe_pb2.Datum) -> np.ndarray:
    """The (channels, height, width) array of a Datum: uint8 where it has bytes, else float64."""
    shape = (datum.channels, datum.height, datum.width)
    if datum.data:
        return np.frombuffer(datum.data, np.uint8).reshape(shape).copy()
    return np.array(datum.float_data, np.float64).reshape(shape)


# -- images ----------------------------------------------------------------------------------------


def load_image(filename: str | os.PathLike[str], color: bool = True) -> np.ndarray:
    """An image file as float32 from 0 to 1: (H, W, 3) in RGB, or (H, W, 1) without ``color``.

    Transparency is left out. FileNotFoundError or ValueError if it cannot be read.
    """
    path = os.fspath(filename)
    if not os.path.exists(path):
        raise FileNotFoundError(f"No such file: {path!r}")
    pixels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError(f"{path!r} is not an image that can be read")
    scale = {"u": 2 ** (8 * pixels.dtype.itemsize) - 1}.get(pixels.dtype.kind, 1)
    image = pixels.astype(np.float32) / np.float32(scale)
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
        return np.tile(image, (1, 1, 3)) if color else image
    image = image[:, :, 2::-1]  # BGR or BGRA to RGB
    if not color:
        image = (image @ _LUMA)[:, :, np.newaxis]
    return np.ascontiguousarray(image)


def oversample(images: Sequence[np.ndarray], crop_dims: Sequence[int]) -> np.ndarray:
    """Ten crops of each (H, W, K) image: four corners, centre, and these mirrored.

    Returns (10 * N, crop height, crop width, K) as float32. All images must have one size.
    """
    height, width = images[0].shape[:2]
    crop_height, crop_width = (int(size) for size in crop_dims)
    centre = (int(height / 2 - crop_height / 2), int(width / 2 - crop_width / 2))
    corners = [(y, x) for y in (0, height - crop_height) for x in (0, width - crop_width)]
    crops = []
    for image in images:
        five = [image[y : y + crop_height, x : x + crop_width] for y, x in [*corners, centre]]
        crops += five + [crop[:, ::-1] for crop in five]
    return np.stack(crops).astype(np.float32)
