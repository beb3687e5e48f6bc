"""From image files to a database of Datum records, with Caffe's keys and bytes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2

from ...proto.errors import ConfigError, DataError
from . import image as images
from .counter_random import Purpose, permutation
from .datum import parse, serialize
from .lists import ListedImage
from .lmdb_writer import LmdbWriter
from .parallel import chunks, ordered_map
from .writers import create_database

logger = logging.getLogger(__name__)

#: What folders of images are searched for.
IMAGE_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
)
_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Options:
    """How images become records; the fields are convert_imageset's flags."""

    gray: bool = False
    resize_width: int = 0
    resize_height: int = 0
    check_size: bool = False
    encoded: bool = False
    encode_type: str = ""

    @property
    def resizes(self) -> bool:
        """Both sizes are needed; with one of them images keep their size, as in Caffe."""
        return self.resize_width > 0 and self.resize_height > 0


@dataclass(slots=True)
class Report:
    """What a conversion did: how many records it stored, and why it left images out."""

    database: Path
    stored: int = 0
    skipped: list[tuple[ListedImage, str]] = field(default_factory=list)


def convert(
    listed: Sequence[ListedImage],
    root: str,
    database: str | Path,
    options: Options | None = None,
    *,
    list_name: str = "list",
    shuffle_seed: int | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
    resume: bool = False,
    backend: str = "lmdb",
) -> Report:
    """Store the images, whose paths are appended to ``root`` as they are, in a new database.

    Images that cannot be read are left out, with a warning that names ``list_name`` and the line.
    Keys are ``%08d_<path>`` with the number of the line (from 0), after shuffling if
    ``shuffle_seed`` is given. ``progress`` is told how many images were dealt with. With ``resume``
    a conversion of the same images and options that was interrupted is carried on; the result is
    that of an uninterrupted one. Raises ConfigError if the database exists otherwise, DataError if
    no image can be stored; then there is no database.
    """
    options = options or Options()
    numbered = [(image.line - 1, image) for image in listed]
    if shuffle_seed is not None:
        order = permutation(len(listed), shuffle_seed, Purpose.SHUFFLE)
        numbered = [(number, listed[index]) for number, index in enumerate(order.tolist())]
    report = Report(Path(database))
    size: int | None = None
    job = _fingerprint(numbered, root, options)
    with create_database(database, backend, job=job, resume=resume) as writer:
        if isinstance(writer, LmdbWriter) and writer.last_key is not None:
            numbered, size = _rest(writer, numbered, report)
            if progress is not None:
                progress(len(listed) - len(numbered))
        work = partial(_chunk_records, root=root, options=options)
        for chunk in ordered_map(work, chunks(numbered, _CHUNK), threads):
            for number, image, made in chunk:
                if isinstance(made, str):
                    report.skipped.append((image, made))
                    logger.error("%s:%d: %s, left out", list_name, image.line, made)
                    continue
                if options.check_size:
                    size = _same_size(made.size, size, f"{list_name}:{image.line}")
                writer.put(_key(number, image), made.value)
                if writer.count % 1000 == 0:
                    logger.info("Processed %d files.", writer.count)
            if progress is not None:
                progress(len(chunk))
        report.stored = writer.count
        if not report.stored:
            raise DataError(f"{list_name}: none of the {len(listed)} images can be read")
    if report.stored % 1000:
        logger.info("Processed %d files.", report.stored)
    return report


def _key(number: int, image: ListedImage) -> bytes:
    return f"{number:08d}_{image.path}".encode("utf-8", "surrogateescape")


def _fingerprint(numbered: Sequence[tuple[int, ListedImage]], root: str, options: Options) -> str:
    """A text that two conversions share only if they store the same."""
    digest = hashlib.sha256(f"{root}\0{options}\0".encode("utf-8", "surrogateescape"))
    for number, image in numbered:
        digest.update(_key(number, image) + b"\0%d\0" % image.label)
    return f"{digest.hexdigest()}\n"


def _rest(
    writer: LmdbWriter, numbered: Sequence[tuple[int, ListedImage]], report: Report
) -> tuple[list[tuple[int, ListedImage]], int | None]:
    """The images that an interrupted conversion did not come to, and the size of its first one.

    Those that it left out are noted in ``report``.
    """
    last, rest = writer.last_key, []
    for number, image in numbered:
        key = _key(number, image)
        if last is not None and key > last:
            rest.append((number, image))
        elif not writer.has(key):
            report.skipped.append((image, "left out before the interruption"))
    logger.info("%d images are done, %d are left.", len(numbered) - len(rest), len(rest))
    first = writer.first_value()
    return rest, None if first is None else len(parse(first).data)


@dataclass(frozen=True, slots=True)
class Made:
    """A Datum in its wire format, and how many bytes of data it has."""

    value: bytes
    size: int


def _chunk_records(
    chunk: list[tuple[int, ListedImage]], root: str, options: Options
) -> list[tuple[int, ListedImage, Made | str]]:
    """Number, image and Datum (or the reason why there is none) of each image."""
    return [
        (number, image, _try_datum(root + image.path, image.label, options))
        for number, image in chunk
    ]


def _try_datum(path: str, label: int, options: Options) -> Made | str:
    try:
        return datum_of(path, label, options)
    except DataError as error:
        return str(error)


def datum_of(path: str, label: int, options: Options) -> Made:
    """The record of one image file, byte for byte as Caffe's convert_imageset stores it.

    Raw records hold the pixels as (channels, height, width), BGR. Encoded ones hold the file as it
    is where neither size nor type changes, else the image encoded anew. DataError if the file
    cannot be read.
    """
    content = images.read_bytes(path)
    mode = images.GRAY if options.gray else images.COLOR
    image = images.decode_file(content, path, mode)
    if options.resizes:
        # cv2 drops an axis of one channel, hence the reshape.
        size = (options.resize_width, options.resize_height)
        image = cv2.resize(image, size).reshape(size[1], size[0], -1)
    if not (options.encoded or options.encode_type):
        pixels = images.planes(image)
        channels, height, width = pixels.shape
        return Made(serialize(pixels.data, label, (channels, height, width)), pixels.size)
    ending = Path(path).suffix.lower().lstrip(".")
    wanted = options.encode_type.lower() or ending
    resizes = options.resize_width > 0 or options.resize_height > 0
    if resizes or not (wanted == ending or (wanted, ending) == ("jpg", "jpeg")):
        content = _encode(image, wanted, path)
    return Made(serialize(content, label), len(content))


def _encode(image: cv2.typing.MatLike, ending: str, path: str) -> bytes:
    try:
        worked, content = cv2.imencode(f".{ending}", image)
    except cv2.error:
        worked = False
    if not worked:
        raise ConfigError(f"{path}: cannot be encoded as {ending!r}; set encode_type to png or jpg")
    return content.tobytes()


def _same_size(found: int, size: int | None, place: str) -> int:
    if size is not None and found != size:
        raise DataError(f"{place}: the image has {found:,} values, the first one has {size:,}")
    return found


def list_folders(folder: str | Path) -> tuple[list[ListedImage], list[str]]:
    """The images of a folder that has one folder per class, and the classes in label order.

    Classes and images come in the order of their names; paths are relative to ``folder``.
    """
    top = Path(folder)
    if not top.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    classes = sorted(each.name for each in top.iterdir() if each.is_dir())
    found: list[ListedImage] = []
    for label, name in enumerate(classes):
        for path in sorted((top / name).rglob("*")):
            if path.suffix.lower() in IMAGE_ENDINGS:
                relative = path.relative_to(top).as_posix()
                found.append(ListedImage(len(found) + 1, relative, label))
    if not found:
        raise DataError(f"{folder}: there are no images in it; it must have a folder per class")
    return found, classes


def split(
    listed: Sequence[ListedImage], fraction: float, seed: int = 0
) -> tuple[list[ListedImage], list[ListedImage]]:
    """A random ``fraction`` of each label's images, and the others; both keep the order."""
    by_label: dict[int, list[int]] = {}
    for place, image in enumerate(listed):
        by_label.setdefault(image.label, []).append(place)
    chosen: set[int] = set()
    for label, places in by_label.items():
        order = permutation(len(places), seed, Purpose.SHUFFLE, label)
        chosen.update(places[each] for each in order[: round(fraction * len(places))].tolist())
    parts: tuple[list[ListedImage], list[ListedImage]] = ([], [])
    for place, image in enumerate(listed):
        parts[place not in chosen].append(image)
    return parts
