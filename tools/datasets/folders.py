"""ILSVRC12-style data sets: one folder of images per class, for training and for validation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...proto.errors import DataError
from ..output.bars import steps

if TYPE_CHECKING:
    from ...layers.data.lists import ListedImage


def prepare_folders(name: str, source: Path, out: Path, size: int, encoded: bool) -> None:
    """Build ``<name>_train_lmdb`` and ``<name>_val_lmdb``, the classes' names and the mean image.

    The training set is shuffled, as Caffe's data layer reads in order. Both parts must have the
    same classes. DataError for folders that do not fit.
    """
    from ...layers.data.conversion import Options, convert, list_folders
    from ...layers.data.mean import compute_mean, write_mean

    options = Options(resize_width=size, resize_height=size, encoded=encoded)
    train, classes = list_folders(source / "train")
    parts = {"train": train, "val": _validation(source, classes)}
    for part, listed in parts.items():
        database = out / f"{name}_{part}_lmdb"
        with steps(len(listed), f"writing {database}") as progress:
            report = convert(
                listed,
                f"{source / part}/",
                database,
                options,
                list_name=str(source / part),
                shuffle_seed=0 if part == "train" else None,
                progress=progress,
            )
        print(f"{database}: {report.stored} images, {len(report.skipped)} left out")
    (out / "labels.txt").write_text("".join(f"{each}\n" for each in classes), encoding="utf-8")
    print(f"{out / 'labels.txt'}: {len(classes)} classes")
    if size:
        write_mean(compute_mean(out / f"{name}_train_lmdb"), out / "mean.binaryproto")
        print(f"{out / 'mean.binaryproto'}: the mean image")


def _validation(source: Path, classes: list[str]) -> list[ListedImage]:
    """The images of val/, from val.txt or one folder per class."""
    from ...layers.data.conversion import list_folders
    from ...layers.data.lists import read_image_list

    if (source / "val.txt").is_file():
        listed = read_image_list(source / "val.txt")
        for image in listed:
            if not 0 <= image.label < len(classes):
                raise DataError(
                    f"{source / 'val.txt'}:{image.line}: label {image.label} is out of range "
                    f"(train/ has {len(classes)} classes)"
                )
        return listed
    listed, found = list_folders(source / "val")
    if found != classes:
        odd = sorted(set(found) ^ set(classes))
        raise DataError(
            f"{source}: train/ and val/ must have the same classes, but only one of them has "
            f"{', '.join(odd[:5])}{', ...' if len(odd) > 5 else ''}"
        )
    return listed
