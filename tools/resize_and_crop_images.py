"""Resize images so that their shorter side fits, and cut the centre square out of each.

The images are those that LIST names, one path a line relative to --input_folder, or all in that
folder. They go to the same paths in --output_folder. --image_lib pil shrinks with a smoother
filter and writes JPEG files. Images that cannot be read are named and left out.

example:
  cortado resize_and_crop_images --input_folder photos --output_folder small
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError, DataError, ResourceError
from .flags import at_least, one_of
from .output.bars import steps

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)
JPEG_QUALITY = 75


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("list", nargs="?", default="", metavar="LIST", help="file of image paths")
    parser.add_argument("--input", default="", help="the same as LIST")
    parser.add_argument("--input_folder", default="", help="folder of the images (required)")
    parser.add_argument("--output_folder", default="", help="folder to write to (required)")
    parser.add_argument(
        "--output_side_length", type=at_least(1), default=256, help="of the squares (default 256)"
    )
    parser.add_argument(
        "--image_lib", type=one_of("opencv", "pil"), default="opencv", help="opencv (default), pil"
    )


def run(args: argparse.Namespace) -> int:
    if not args.input_folder or not args.output_folder:
        raise ConfigError("resize_and_crop_images: --input_folder and --output_folder are needed")
    source, target = Path(args.input_folder), Path(args.output_folder)
    names = _listed(args.list or args.input) or _found(source)
    square = _SQUARES[args.image_lib]
    written = 0
    with steps(len(names), "resizing") as progress:
        for name in names:
            try:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                square(source / name, target / name, args.output_side_length)
                written += 1
            except DataError as error:
                logger.error("%s, left out", error)
            except OSError as error:
                raise ResourceError(f"{target / name}: {error.strerror}") from None
            if progress is not None:
                progress(1)
    if not written:
        raise DataError(f"{source}: none of its {len(names)} images can be read")
    print(f"{target}: {written} images of {len(names)}")
    return 0


def _listed(path: str) -> list[str]:
    if not path:
        return []
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except OSError as error:
        raise DataError(f"list {path!r}: {error.strerror}") from None
    return [line.strip() for line in lines if line.strip()]


def _found(folder: Path) -> list[str]:
    from ..layers.data.conversion import IMAGE_ENDINGS

    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)
    if not found:
        raise DataError(f"{folder}: there are no images in it")
    return [path.relative_to(folder).as_posix() for path in found]


def _with_opencv(source: Path, target: Path, side: int) -> None:
    """Scale the shorter side to ``side``, then cut the middle out."""
    import cv2

    image = cv2.imread(str(source))
    if image is None:
        raise DataError(f"{source}: is no image that can be read")
    height, width = image.shape[:2]
    shorter = min(height, width)
    size = side * width // shorter, side * height // shorter
    resized = cv2.resize(image, size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    if not cv2.imwrite(str(target), resized[top : top + side, left : left + side]):
        raise DataError(f"{target}: cannot be written")


def _with_pil(source: Path, target: Path, side: int) -> None:
    """Cut the middle square out, then shrink it (never enlarge it) with a smooth filter."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source) as image:
            small = _middle(image).convert("RGB")
    except (UnidentifiedImageError, FileNotFoundError, Image.DecompressionBombError):
        raise DataError(f"{source}: is no image that can be read") from None
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small.save(target, "JPEG", quality=JPEG_QUALITY)


def _middle(image: Image) -> Image:
    width, height = image.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    return image.crop((left, top, left + edge, top + edge))


_SQUARES: dict[str, Callable[[Path, Path, int], None]] = {
    "opencv": _with_opencv,
    "pil": _with_pil,
}
