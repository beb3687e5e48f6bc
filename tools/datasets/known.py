"""The data sets that `cortado dataset` prepares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...model_zoo.download import Checksum, RemoteFile
from ...proto.errors import DataError
from . import formats


@dataclass(frozen=True, slots=True)
class Dataset:
    """Files to fetch, and how they are read.

    ``files`` has the name and the MD5 of each, as published; they are at the address ``url``.
    ``parts`` gives for each database ("train", "test") the images from the files, by file name.
    ``mean`` asks for a mean image of the training set.
    """

    url: str
    files: Mapping[str, str]
    parts: Mapping[str, Callable[[Mapping[str, Path]], Iterator[formats.Labelled]]]
    mean: bool = False

    def remote(self) -> list[RemoteFile]:
        """The files as they can be fetched."""
        return [
            RemoteFile(
                f"{self.url}/{name}",
                Checksum("md5", digits),
                refusal=DataError,
                otherwise="--source DIR takes files that you have",
            )
            for name, digits in self.files.items()
        ]


def _idx_pair(prefix: str) -> Callable[[Mapping[str, Path]], Iterator[formats.Labelled]]:
    images, labels = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
    return lambda files: formats.mnist_images(files[images], files[labels])


_CIFAR10 = "cifar-10-binary.tar.gz"
_CIFAR100 = "cifar-100-binary.tar.gz"


def _cifar(
    archive: str, label_bytes: int, *members: str
) -> Callable[[Mapping[str, Path]], Iterator[formats.Labelled]]:
    return lambda files: formats.cifar_images(files[archive], list(members), label_bytes)


DATASETS: dict[str, Dataset] = {
    "mnist": Dataset(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        {"train": _idx_pair("train"), "test": _idx_pair("t10k")},
    ),
    "cifar10": Dataset(
        "https://www.cs.toronto.edu/~kriz",
        {_CIFAR10: "c32a1d4ab5d03f1284b67883e8d87530"},
        {
            "train": _cifar(
                _CIFAR10, 1, *(f"cifar-10-batches-bin/data_batch_{n}.bin" for n in range(1, 6))
            ),
            "test": _cifar(_CIFAR10, 1, "cifar-10-batches-bin/test_batch.bin"),
        },
        mean=True,
    ),
    "cifar100": Dataset(
        "https://www.cs.toronto.edu/~kriz",
        {_CIFAR100: "03b5dce01913d631647c71ecec9e9cb8"},
        {
            "train": _cifar(_CIFAR100, 2, "cifar-100-binary/train.bin"),
            "test": _cifar(_CIFAR100, 2, "cifar-100-binary/test.bin"),
        },
        mean=True,
    ),
    "fashion_mnist": Dataset(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        {"train": _idx_pair("train"), "test": _idx_pair("t10k")},
    ),
}
