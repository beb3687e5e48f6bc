"""See it work: train a net on real handwritten digits, from image files to a tested classifier.

The 1,797 digits that come with scikit-learn become image files, then databases; a net declared in
prototxt learns them and names some that it has never seen. It takes less than a minute on two
cores and leaves everything it made in the folder given by --out.

example:
  cortado demo --out demo
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from ..proto.errors import ConfigError, ResourceError

#: Lies in the folder that a demo made, so that the next one may delete it.
MARK = ".cortado-demo"
TEST_IMAGES = 360
SHOWN = 5


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="demo", help="folder to write to (default demo)")


def run(args: argparse.Namespace) -> int:
    import torch

    began = time.monotonic()
    # A net this small gains little from several threads, and on a busy machine they wait for one
    # another most of the time.
    torch.set_num_threads(1)
    folder = prepare_folder(Path(args.out))
    with contextlib.chdir(folder):
        write_images()
        for part in ("train", "test"):
            command(f"convert_imageset --gray --shuffle images/ {part}.txt digits_{part}_lmdb")
        command("draw_net train_val.prototxt net.png --rankdir TB --phase TRAIN")
        command("train --solver solver.prototxt --log_file train.log")
        draw_curve()
        accuracy = test()
        classify()
    print(f"\neverything is in {folder}/: try  cd {folder} && cortado check solver.prototxt")
    print(f"demo: test accuracy = {accuracy:.4f}, {time.monotonic() - began:.0f} s")
    return 0


def prepare_folder(folder: Path) -> Path:
    """An empty ``folder`` with the example's prototxt files; an earlier demo's is replaced."""
    if (folder / MARK).exists():
        shutil.rmtree(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--out {folder}: it exists and no demo made it; name another folder")
    try:
        (folder / "images").mkdir(parents=True)
    except OSError as error:
        raise ResourceError(f"--out {folder}: {error.strerror}") from None
    (folder / MARK).touch()
    example = resources.files(f"{__package__.partition('.')[0]}.examples") / "digits"
    for file in example.iterdir():
        if file.name.endswith(".prototxt"):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def command(line: str) -> None:
    """Show a command line and run it, as typed."""
    from .cli import dispatch

    print(f"\n$ cortado {line}", flush=True)
    code = dispatch(shlex.split(line))
    if code:
        sys.exit(code)


def write_images() -> None:
    """Write the digits as PNG files, and lists of those to train on and those to test with."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ResourceError(
            "the demo's digits come with scikit-learn: pip install 'cortado[demo]'"
        ) from None
    import cv2
    import numpy as np

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(pixels))
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for place, index in enumerate(order):
        name = f"{index:04d}.png"
        cv2.imwrite(f"images/{name}", pixels[index])
        part = "test" if place < TEST_IMAGES else "train"
        lists[part].append(f"{name} {digits.target[index]}\n")
    for part, lines in lists.items():
        Path(f"{part}.txt").write_text("".join(lines), encoding="utf-8")
    print(
        f"wrote {len(pixels)} images: {len(lists['train'])} to learn, {len(lists['test'])} to test"
    )


def draw_curve() -> None:
    from .output.curves import learning_curve, read_log

    learning_curve(read_log("train.log"), "learning_curve.png")
    print("\nwrote learning_curve.png and net.png")


def weights_file() -> Path:
    """The snapshot of the last iteration."""
    found = Path().glob("digits_iter_*.caffemodel")
    return max(found, key=lambda path: int(path.stem.rpartition("_")[2]))


def test() -> float:
    """Test the trained net on all test images; the share that it names rightly."""
    from ..netdef import Net
    from .test import evaluate

    batches = TEST_IMAGES // 90
    print(
        f"\n$ cortado test --model train_val.prototxt --weights {weights_file()} "
        f"--iterations {batches}",
        flush=True,
    )
    net = Net("train_val.prototxt", "TEST", weights=weights_file())
    try:
        results = evaluate(net, batches)
    finally:
        net.close()
    return next(result.value for result in results if result.blob == "accuracy")


def classify() -> None:
    """Name a few test images and show them on the terminal."""
    import cv2
    import numpy as np
    import torch

    from ..netdef import Net

    first: dict[int, str] = {}  # the first image of each class that comes
    for line in Path("test.txt").read_text(encoding="utf-8").splitlines():
        name, number = line.split()
        first.setdefault(int(number), name)
    labels = list(first)[:SHOWN]
    files = (f"images/{first[label]}" for label in labels)
    images = [np.asarray(cv2.imread(file, cv2.IMREAD_GRAYSCALE)) for file in files]
    net = Net("deploy.prototxt", "TEST", weights=weights_file())
    with torch.no_grad():
        rows = [
            net(data=torch.from_numpy(np.float32(image) / 255)[None, None])["prob"][0]
            for image in images
        ]
    print("\nfive digits it has never seen:\n")
    for row in range(len(images[0])):
        print("   ".join(blocks(image[row]) for image in images))
    captions = []
    for probabilities, label in zip(rows, labels, strict=True):
        best = int(probabilities.argmax())
        sign = "right" if best == label else f"a {label}"
        captions.append(f"{best} {float(probabilities[best]):5.1%} {sign}".ljust(16))
    print("   ".join(captions))


def blocks(pixels: Iterable[int]) -> str:
    """A row of grey pixels from 0 to 255 as block characters, two for each."""
    shades = " ░▒▓█"
    return "".join(shades[int(pixel) * (len(shades) - 1) // 255] * 2 for pixel in pixels)
