"""A net that knows the digits 0 to 4 learns 5 to 9 from few images.

The net first learns the digits 0 to 4. Then it is given a new last layer and tuned to 5 to 9 with
1, 2, 5, 10 and 20 images of each, once with all layers learning and once with the convolutions
frozen; beside it the same net learns the same images from random weights. It writes a table and a
plot, and takes about a minute on two cores.

    python examples/fine_tuning/run.py --out tuned
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cortado.proto.files import read_solver
from cortado.solvers import Solver, events, fine_tuning
from cortado.tools.cli import main as cortado

HERE = Path(__file__).resolve().parent
COUNTS = (1, 2, 5, 10, 20)
TRIALS = 3
WAYS = ("from scratch", "fine-tuned", "fine-tuned, frozen convolutions")


def write_database(name: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Image files of the digits, a list of them, and the database that convert_imageset makes."""
    folder = Path(f"{name}_images")
    folder.mkdir()
    lines = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        cv2.imwrite(str(folder / f"{number:04d}.png"), (image * (255 / 16)).round())
        lines.append(f"{number:04d}.png {label}\n")
    Path(f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    if cortado(["convert_imageset", "--gray", f"{folder}/", f"{name}.txt", name]):
        raise SystemExit(f"no database {name}")


def prepare() -> dict[str, int]:
    """All databases; how many images each has."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = digits.images[order], digits.target[order]
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    first = labels < 5
    parts["first_train"] = images[first][100:], labels[first][100:]
    parts["first_test"] = images[first][:100], labels[first][:100]
    images, labels = images[~first], labels[~first] - 5
    parts["other_test"] = images[:500], labels[:500]
    images, labels = images[500:], labels[500:]
    for count in COUNTS:
        for trial in range(TRIALS):
            chosen = np.concatenate(
                [np.flatnonzero(labels == kind)[trial * count :][:count] for kind in range(5)]
            )
            chosen = np.random.default_rng(trial).permutation(chosen)
            parts[f"other_{count}_{trial}"] = images[chosen], labels[chosen]
    for name, (of, to) in parts.items():
        write_database(name, of, to)
    return {name: len(to) for name, (_, to) in parts.items()}


def learn(
    train: str, test: str, sizes: dict[str, int], weights: str = "", freeze: Sequence[str] = ()
) -> tuple[float, Solver]:
    """Train on one database, from ``weights`` if given; accuracy on the other, and the solver."""
    variables = {
        "train": train,
        "test": test,
        "batch": min(64, sizes[train]),
        "test_batch": sizes[test],
    }
    document = read_solver(HERE / "solver.prototxt", variables)
    document.message.net = str(HERE / "net.prototxt")
    if freeze:
        document = fine_tuning.frozen(document, freeze)
    found: list[float] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.TestFinished):
            found.append(next(each.value for each in event.outputs if each.blob == "accuracy"))

    starts = {"weights": [weights], "fresh": ["ip2"]} if weights else {"weights": []}
    with Solver(document, listeners=[listen], **starts) as solver:  # type: ignore[arg-type]
        solver.solve()
        solver.test_all()
    return found[-1], solver


def compare(sizes: dict[str, int]) -> dict[str, list[float]]:
    """The mean accuracy of each way, for each count of images."""
    accuracy, solver = learn("first_train", "first_test", sizes)
    print(f"digits 0 to 4: accuracy {accuracy:.3f} with {sizes['first_train']} images")
    solver.net.save("first.caffemodel")
    starts: tuple[dict[str, object], ...] = (
        {},
        {"weights": "first.caffemodel"},
        {"weights": "first.caffemodel", "freeze": ["conv*"]},
    )
    results: dict[str, list[float]] = {}
    for way, start in zip(WAYS, starts, strict=True):
        results[way] = [
            float(
                np.mean(
                    [
                        learn(f"other_{count}_{trial}", "other_test", sizes, **start)[0]  # type: ignore[arg-type]
                        for trial in range(TRIALS)
                    ]
                )
            )
            for count in COUNTS
        ]
    return results


def table(results: dict[str, list[float]]) -> str:
    rows = ["| images of each digit | " + " | ".join(map(str, COUNTS)) + " |"]
    rows.append("|---" * (len(COUNTS) + 1) + "|")
    for way, values in results.items():
        rows.append(f"| {way} | " + " | ".join(f"{value:.1%}" for value in values) + " |")
    return "\n".join(rows)


def plot(results: dict[str, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for way, values in results.items():
        axes.plot(COUNTS, values, "o-", label=way)
    axes.set(
        xscale="log", xticks=COUNTS, xticklabels=COUNTS, xlabel="images of each digit",
        ylabel="accuracy on 500 images", title="Learning 5 to 9, knowing 0 to 4",
    )  # fmt: skip
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, bbox_inches="tight", dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", default="tuned", help="new folder to write to (default tuned)")
    folder = Path(parser.parse_args().out)
    if folder.exists():
        raise SystemExit(f"--out {folder}: it exists; name another folder")
    folder.mkdir(parents=True)
    with contextlib.chdir(folder):
        results = compare(prepare())
        Path("table.md").write_text(table(results) + "\n", encoding="utf-8")
        plot(results, Path("gain.png"))
        for images in Path().glob("*_images"):
            shutil.rmtree(images)
    print(f"\n{table(results)}\n\nwrote {folder}/table.md and {folder}/gain.png")


if __name__ == "__main__":
    main()
