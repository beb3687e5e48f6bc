"""A net that knows the digits 0 to 4 learns 5 to 9 from few images.

The net first learns the digits 0 to 4 in their eight orientations, turned and mirrored: 40 classes,
which need more to be told apart than five, so that its layers come to know more. Then its fully
connected layers start anew, and it is tuned to 5 to 9 with 1, 2, 5, 10 and 20 images of each, once
with all layers learning and once with the convolutions frozen; beside it the same net learns the
same images from random weights, with the same solver and the same augmentation. It writes a table
and a plot, and takes a few minutes on two cores.

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
#: Draws of training images; each way learns from the same ones.
TRIALS = 8
SCRATCH, *TUNED = WAYS = ("from scratch", "fine-tuned", "fine-tuned, frozen convolutions")
SIDE = 16
ORIENTATIONS = 8
TESTED = 400

#: Accuracies of a way for each count of images: (counts, trials).
Results = dict[str, np.ndarray]


def write_database(name: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Image files of the digits, a list of them, and the database that convert_imageset makes."""
    folder = Path(f"{name}_images")
    folder.mkdir()
    lines = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        cv2.imwrite(str(folder / f"{number:04d}.png"), image)
        lines.append(f"{number:04d}.png {label}\n")
    Path(f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    if cortado(["convert_imageset", "--gray", "--quiet", f"{folder}/", f"{name}.txt", name]):
        raise SystemExit(f"no database {name}")
    shutil.rmtree(folder)


def oriented(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image turned by quarters, and mirrored: eight classes for each label."""
    turned = [np.rot90(images, turns, (1, 2)) for turns in range(4)]
    turned += [each[:, :, ::-1] for each in turned]
    classes = [labels * ORIENTATIONS + number for number in range(ORIENTATIONS)]
    return np.concatenate(turned), np.concatenate(classes)


def prepare() -> dict[str, int]:
    """All databases; how many images each has."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    pixels = (digits.images[order] * (255 / 16)).round().astype(np.uint8)
    images = np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
                       for image in pixels])  # fmt: skip
    labels = digits.target[order]
    first = labels < 5
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    parts["first_train"] = oriented(images[first][100:], labels[first][100:])
    parts["first_test"] = oriented(images[first][:100], labels[first][:100])
    images, labels = images[~first], labels[~first] - 5
    parts["other_test"] = images[:TESTED], labels[:TESTED]
    images, labels = images[TESTED:], labels[TESTED:]
    for count in COUNTS:
        for trial in range(TRIALS):
            random = np.random.default_rng((count, trial))
            chosen = np.concatenate(
                [random.choice(np.flatnonzero(labels == kind), count, False) for kind in range(5)]
            )
            parts[f"other_{count}_{trial}"] = images[chosen], labels[chosen]
    for name, (of, to) in parts.items():
        write_database(name, of, to)
    return {name: len(to) for name, (_, to) in parts.items()}


def learn(
    train: str,
    test: str,
    sizes: dict[str, int],
    *,
    seed: int = 0,
    iterations: int = 0,
    weights: str = "",
    freeze: Sequence[str] = (),
) -> tuple[float, Solver]:
    """Train on one database, from ``weights`` if given; accuracy on the other, and the solver."""
    variables = {
        "train": train,
        "test": test,
        "batch": min(64, sizes[train]),
        "test_batch": sizes[test],
        "classes": 5 if train != "first_train" else 5 * ORIENTATIONS,
    }
    document = read_solver(HERE / "solver.prototxt", variables)
    document.message.net = str(HERE / "net.prototxt")
    document.message.random_seed = seed
    document.message.max_iter = iterations or document.message.max_iter
    if freeze:
        document = fine_tuning.frozen(document, freeze)
    found: list[float] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.TestFinished):
            found.append(next(each.value for each in event.outputs if each.blob == "accuracy"))

    starts = {"weights": [weights], "fresh": ["ip*"]} if weights else {"weights": []}
    with Solver(document, listeners=[listen], **starts) as solver:  # type: ignore[arg-type]
        solver.solve()
        solver.test_all()
    return found[-1], solver


def compare(sizes: dict[str, int]) -> Results:
    """The accuracy of each way, for each count of images and each draw of them."""
    accuracy, solver = learn("first_train", "first_test", sizes, iterations=1500)
    print(f"digits 0 to 4 in {ORIENTATIONS} orientations: accuracy {accuracy:.3f}")
    solver.net.save("first.caffemodel")
    starts: tuple[dict[str, object], ...] = (
        {},
        {"weights": "first.caffemodel"},
        {"weights": "first.caffemodel", "freeze": ["conv*"]},
    )
    results = {way: np.zeros((len(COUNTS), TRIALS)) for way in WAYS}
    for row, count in enumerate(COUNTS):
        for trial in range(TRIALS):
            for way, start in zip(WAYS, starts, strict=True):
                found, _ = learn(
                    f"other_{count}_{trial}", "other_test", sizes, seed=trial, **start  # type: ignore[arg-type]
                )  # fmt: skip
                results[way][row, trial] = found
        print(f"{count}: " + ", ".join(f"{way} {results[way][row].mean():.3f}" for way in WAYS))
    return results


def table(results: Results) -> str:
    """Means and deviations over the draws; then how much more a tuned net gets of the same draw."""
    rows = ["| images of each digit | " + " | ".join(map(str, COUNTS)) + " |"]
    rows.append("|---" * (len(COUNTS) + 1) + "|")
    for way, values in results.items():
        cells = (f"{100 * v.mean():.1f} ± {100 * v.std(ddof=1):.1f}" for v in values)
        rows.append(f"| {way} | " + " | ".join(cells) + " |")
    for way in TUNED:
        gains = 100 * (results[way] - results[SCRATCH])
        errors = gains.std(axis=1, ddof=1) / np.sqrt(TRIALS)
        cells = (f"{gain:+.1f} ± {e:.1f}" for gain, e in zip(gains.mean(1), errors, strict=True))
        rows.append(f"| gain, {way} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def plot(results: Results, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for shift, (way, values) in zip((0.97, 1, 1.03), results.items(), strict=True):
        spread = values.std(axis=1, ddof=1)
        axes.errorbar(np.array(COUNTS) * shift, values.mean(1), spread, fmt="o-", capsize=3,
                      label=way)  # fmt: skip
    axes.set(
        xscale="log", xticks=COUNTS, xticklabels=COUNTS, xlabel="images of each digit",
        ylabel=f"accuracy on {TESTED} images", title="Learning 5 to 9, knowing 0 to 4",
    )  # fmt: skip
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
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
    print(f"\n{table(results)}\n\nwrote {folder}/table.md and {folder}/gain.png")


if __name__ == "__main__":
    main()
