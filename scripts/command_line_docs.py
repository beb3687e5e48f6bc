"""Write docs/command_line.md: transcripts and pictures of real runs on scikit-learn's digits.

Run it from a checkout in which cortado is installed; it takes about a minute.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cortado.examples.digit_folders import write
from cortado.tools.cli import help_line, subcommands

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
#: Lines of a transcript that are shown from its beginning and from its end.
HEAD, TAIL = 12, 6
PROGRAM = [sys.executable, "-m", "cortado.tools.cli"]


@dataclass(frozen=True, slots=True)
class Step:
    """A command line with what it is for, and the picture it makes, if any."""

    about: str
    line: str
    picture: str = ""
    folder: str = "digits"


INTRODUCTION = """\
`cortado COMMAND --help` shows the flags of a command with an example; `alias caffe=cortado`
serves existing scripts. `cortado completion bash` (or zsh, fish) prints a script for the shell.
`--quiet`, `--log_file FILE` and `--debug` go with every command, `--json` with train and test.

`train --tensorboard DIR`, or `tensorboard { folder: "DIR" }` in the solver, writes event files:
losses, outputs, rates, histograms of weights and gradients, images of input, first filters and
activations, sound of the blobs that `audio` names, graph, texts and hyperparameters.
`cortado tensorboard DIR` shows them (`pip install 'cortado[tensorboard]'`)."""
WEIGHTS = "digits_iter_225.caffemodel"
TRAINED = f"train_val.prototxt {WEIGHTS}"
STEPS = (
    Step(
        "A ready experiment from a folder of images that has a folder for each class.",
        "new digits --images images --gray --size 16 --epochs 5",
        folder=".",
    ),
    Step("What is wrong, and what is probably not meant.", "check solver.prototxt --data"),
    Step("The layers, one line each.", "summarize train_val.prototxt"),
    Step("", "draw_net train_val.prototxt net.png --phase TRAIN --rankdir TB", "net.png"),
    Step("The course of the learning rate before anything is trained.",
         "plot_lr solver.prototxt --out rate.png", "rate.png"),
    Step("Training. On a terminal a display below these lines shows progress, epoch, loss, rate, "
         "images a second, memory, the time left and the last test's results.",
         "train --solver solver.prototxt --log_file train.log --tensorboard board"),
    Step("The same for machines.",
         "train --solver solver.prototxt --snapshot digits_iter_90.solverstate --quiet --json"),
    Step("", f"test --model train_val.prototxt --weights {WEIGHTS} --iterations 6"),
    Step("", "time --model train_val.prototxt --iterations 3"),
    Step("Charts of a log: numbers 0 to 7, several logs in one.",
         "plot_training_log 6 loss.png train.log", "loss.png"),
    Step("", "parse_log train.log . --verbose"),
    Step("Which class is taken for which.",
         f"show confusion {TRAINED} confusion.png", "confusion.png"),
    Step("", f"show worst {TRAINED} worst.png --count 9", "worst.png"),
    Step("", f"show filters {TRAINED} filters.png", "filters.png"),
    Step("", f"show activations {TRAINED} activations.png", "activations.png"),
    Step("", f"show gradcam {TRAINED} gradcam.png --index 4", "gradcam.png"),
    Step("", "runs list ."),
    Step("", "runs overlay . runs.png", "runs.png"),
    Step("", "data info train_lmdb --sheet sheet.png", "sheet.png"),
    Step("", "compute_image_mean train_lmdb mean.binaryproto"),
    Step("", "upgrade_net_proto_text train_val.prototxt upgraded.prototxt"),
    Step("", "plan train_val.prototxt --batch 256"),
    Step("", "device_query"),
)  # fmt: skip


def transcript(step: Step, place: Path) -> str:
    """What is typed and what comes, shortened in the middle, without this machine's own facts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "100"}
    done = subprocess.run(  # noqa: S603
        [*PROGRAM, *shlex.split(step.line)],
        cwd=place / step.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"cortado {step.line}: exit code {done.returncode}\n{done.stdout}")
    lines = [line.replace(f"{place}/", "")[:160] for line in done.stdout.splitlines()]
    if len(lines) > HEAD + TAIL + 1:
        left_out = len(lines) - HEAD - TAIL
        lines = [*lines[:HEAD], f"... {left_out} lines ...", *lines[-TAIL:]]
    return "\n".join([f"$ cortado {step.line}", *lines])


def keep(step: Step, place: Path) -> str:
    """Copy the step's picture to the docs; the line that shows it."""
    name = f"cli_{step.picture}"
    shutil.copy(place / step.folder / step.picture, DOCS / "images" / name)
    alt = step.line.split()[:2]
    return f"![{' '.join(alt)}](images/{name})"


def main() -> None:
    parts = [
        "# The command line",
        INTRODUCTION,
        "This page is written by `scripts/command_line_docs.py` from real runs.",
        "## Commands",
        "\n".join(f"- `{name}`: {help_line(module)}" for name, module in subcommands().items()),
        "## Transcripts",
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write(place / "images")
        for step in STEPS:
            title = " ".join(
                word for word in step.line.split()[:2] if re.fullmatch(r"[a-z_]+", word)
            )
            parts.append(f"### {title}")
            if step.about:
                parts.append(step.about)
            parts.append(f"```\n{transcript(step, place)}\n```")
            if step.picture:
                parts.append(keep(step, place))
    (DOCS / "command_line.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
