"""The 1,797 handwritten digits that come with scikit-learn, as the scripts beside this use them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from sklearn.datasets import load_digits

#: How many of the digits are for training; the others are for testing.
TRAINING = 1500


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 1, 8, 8) from 0 to 1 and their labels (1797,), in an order without trend."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    return (
        (images[order] / 16).reshape(-1, 1, 8, 8).astype(np.float32),
        labels[order].astype(np.float32),
    )


def write_hdf5(folder: Path, name: str, data: np.ndarray, label: np.ndarray) -> str:
    """Write arrays to an HDF5 file and its name to a list, as HDF5Data reads them; returns the path
    of the list."""
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["data"], file["label"] = data, label
    listing = folder / f"{name}.txt"
    listing.write_text(f"{folder / name}.h5\n")
    return str(listing)


def write_split(folder: Path, chosen: np.ndarray | None = None) -> tuple[str, str]:
    """Write the lists of training and test digits (of the labels ``chosen``, counted from 0)."""
    data, label = arrays()
    parts = []
    for name, part in (("train", slice(TRAINING)), ("test", slice(TRAINING, None))):
        images, labels = data[part], label[part]
        if chosen is not None:
            kept = np.isin(labels, chosen)
            images, labels = images[kept], np.searchsorted(chosen, labels[kept])
        parts.append(write_hdf5(folder, name, images, labels.astype(np.float32)))
    return parts[0], parts[1]
