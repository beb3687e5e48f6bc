"""Write docs/command_line.md: transcripts and pictures of real runs on scikit-learn's digits.

Run it from a checkout in which cortado is installed; it takes about two minutes. Nothing is fetched
from the network: what is downloaded is served by this process.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import command_line_material as material
import torch
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.progress import Progress

import cortado
from cortado.examples.digit_folders import write
from cortado.proto.folders import home
from cortado.solvers import Solver
from cortado.solvers.events import Event, IterationDone
from cortado.tools import train
from cortado.tools.cli import help_line, subcommands
from cortado.tools.output import glog, live, log
from cortado.tools.variables import read_solver_with

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
#: Lines of a transcript that are shown from its beginning and from its end.
HEAD, TAIL = 12, 6
WIDTH = 160
#: What a server says when it is ready; it is stopped then, as it would run for ever.
READY = "(Press CTRL+C to quit)"
#: Facts of the machine this runs on that are nobody's business.
PRIVATE = re.compile(r"^(Name: +).*", re.MULTILINE)
PROGRAM = [sys.executable, "-m", "cortado.tools.cli"]


@dataclass(frozen=True, slots=True)
class Step:
    """A command line with what it is for, and the picture it makes, if any.

    ``fails`` if it must end with an error; with ``live`` the live display is drawn.
    """

    about: str
    line: str
    picture: str = ""
    folder: str = "digits"
    fails: bool = False
    live: bool = False


INTRODUCTION = """\
`cortado COMMAND --help` shows the flags of a command with an example; `alias caffe=cortado`
serves existing scripts. `cortado completion bash` (or zsh, fish) prints a script for the shell.
`--quiet`, `--log_file FILE` and `--debug` go with every command, `--json` with train and test.

`train --tensorboard DIR`, or `tensorboard { folder: "DIR" }` in the solver, writes event files:
losses, outputs, rates, histograms of weights and gradients, images of input, first filters and
activations, sound of the blobs that `audio` names, graph, texts and hyperparameters.
`cortado tensorboard DIR` shows them (`pip install 'cortado[tensorboard]'`)."""
WEIGHTS = "digits_iter_225.caffemodel"
DEPLOYED = (
    f"--model_def deploy.prototxt --pretrained_model {WEIGHTS} --mean_file mean.binaryproto "
    "--input_scale 0.017"
)
TRAINED = f"train_val.prototxt {WEIGHTS}"
STEPS = (
    Step(
        "A ready experiment from a folder of images that has a folder for each class.",
        "new digits --images images --size 16 --epochs 5",
        folder=".",
    ),
    Step("Databases from images alone, or from a list of them.",
         "convert_imageset --from_folders ../images --shuffle --split 0.8 pictures"),
    Step("A public data set. Here files that are there already, scikit-learn's digits in the "
         "format of MNIST; without --source they are downloaded.",
         "dataset mnist --source idx_files --out mnist"),
    Step("", "resize_and_crop_images --input_folder ../images/3 --output_folder small "
         "--output_side_length 32"),
    Step("What is wrong, and what is probably not meant.", "check solver.prototxt --data"),
    Step("The layers, one line each.", "summarize train_val.prototxt"),
    Step("", "draw_net train_val.prototxt net.png --phase TRAIN --rankdir TB", "net.png"),
    Step("The course of the learning rate before anything is trained.",
         "plot_lr solver.prototxt --out rate.png", "rate.png"),
    Step("A range test, to find the rate.",
         "lr_finder solver.prototxt --iterations 60 --out range.png", "range.png"),
    Step("Training. On a terminal a display below these lines shows progress, epoch, loss, rate, "
         "images a second, memory, the time left and the last test's results.",
         "train --solver solver.prototxt --log_file train.log --tensorboard board",
         live=True),
    Step("The same for machines.",
         "train --solver solver.prototxt --snapshot digits_iter_90.solverstate --quiet --json"),
    Step("", f"test --model train_val.prototxt --weights {WEIGHTS} --iterations 6"),
    Step("Each class, and what is confused, for a snapshot, a prototxt or a model of the zoo.",
         f"eval {WEIGHTS} --data test_lmdb --rows 3 --json result.json"),
    Step("", "time --model train_val.prototxt --iterations 3"),
    Step("Charts of a log: numbers 0 to 7, several logs in one.",
         "plot_training_log 6 loss.png train.log", "loss.png"),
    Step("", "parse_log train.log . --verbose"),
    Step("", "extract_seconds train.log seconds.txt"),
    Step("The server for the event files of --tensorboard; it is stopped with Ctrl-C.",
         "tensorboard board --port 6006"),
    Step("A run that goes wrong (here at an absurd rate) leaves a bundle ...",
         "train --solver solver.prototxt --set base_lr=1e38 --set snapshot_prefix=broken --quiet",
         fails=True),
    Step("... that shows where it began.", "replay broken_not_finite_iter_1"),
    Step("Which class is taken for which.",
         f"show confusion {TRAINED} confusion.png", "confusion.png"),
    Step("", f"show worst {TRAINED} worst.png --count 9", "worst.png"),
    Step("", f"show filters {TRAINED} filters.png", "filters.png"),
    Step("", f"show activations {TRAINED} activations.png", "activations.png"),
    Step("", f"show gradcam {TRAINED} gradcam.png --index 4", "gradcam.png"),
    Step("The net for deployment: what `new` wrote as deploy.prototxt already.",
         "deploy train_val.prototxt"),
    Step("The probabilities of all images of a folder, prepared as the weights recorded.",
         "classify ../images/3 scores.npy --ext png --center_only --model_def deploy.prototxt "
         f"--pretrained_model {WEIGHTS}"),
    Step("The scores of windows of images.",
         f"detect windows.csv windows_scores.csv --crop_mode list --context_pad 0 {DEPLOYED}"),
    Step("", f"extract_features {WEIGHTS} train_val.prototxt global,scores "
         "global_lmdb,scores_lmdb 2 lmdb"),
    Step("", f"convert {WEIGHTS} digits.safetensors --model deploy.prototxt --verify"),
    Step("", "runs list ."),
    Step("", "runs overlay . runs.png", "runs.png"),
    Step("", "data info train_lmdb --sheet sheet.png", "sheet.png"),
    Step("", "compute_image_mean train_lmdb mean.binaryproto"),
    Step("Files of Caffe's early days: a net of `layers`, a solver with a `solver_type`.",
         "upgrade_net_proto_text old_net.prototxt upgraded.prototxt"),
    Step("", "upgrade_net_proto_binary old_net.caffemodel upgraded.caffemodel"),
    Step("", "upgrade_solver_proto_text old_solver.prototxt upgraded_solver.prototxt"),
    Step("[Blocks](blocks.md) written out.", "expand blocks.prototxt --set width=32"),
    Step("", "zoo list"),
    Step("", "zoo show lenet"),
    Step("", "zoo write lenet"),
    Step("Weights that a model folder's readme.md tells the address of.",
         "download_model_binary model"),
    Step("", "plan train_val.prototxt --batch 256"),
    Step("One round of two images shows the form of the answer only; measured figures are in "
         "[benchmarks](benchmarks.md).", "bench lenet --rounds 1 --batch 2"),
    Step("", "device_query"),
    Step("What is kept for later runs; `cortado cache clear KIND` removes it.", "cache"),
    Step("", "completion bash"),
    Step("", "demo --out demo", folder="."),
)  # fmt: skip


def transcript(step: Step, place: Path) -> str:
    """What is typed and what comes, shortened in the middle, without this machine's own facts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "100"}
    with subprocess.Popen(  # noqa: S603
        [*PROGRAM, *shlex.split(step.line)],
        cwd=place / step.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if READY in line:
                os.killpg(process.pid, signal.SIGINT)
                break
        else:
            if (process.wait() != 0) is not step.fails:
                sys.exit(f"cortado {step.line}: exit code {process.returncode}\n{''.join(said)}")
    return "\n".join([f"$ cortado {step.line}", *shortened("".join(said), place)])


def shortened(text: str, place: Path) -> list[str]:
    """The lines of ``text`` without private facts, cut in the middle and at their right end."""
    package = Path(cortado.__file__).parent
    text = text.replace(f"{place}/", "").replace(str(package), "cortado")
    text = text.replace(str(home()), "~/.cache/cortado")
    lines = PRIVATE.sub(r"\1(the processor's name)", text).splitlines()
    lines = [line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines]
    if len(lines) > HEAD + TAIL + 1:
        return [*lines[:HEAD], f"… {len(lines) - HEAD - TAIL} lines …", *lines[-TAIL:]]
    return lines


def live_display(folder: Path, path: Path, at: int = 137) -> None:
    """Draw what a terminal shows at iteration ``at`` of training as ``path``, an SVG file."""
    console = Console(record=True, file=io.StringIO(), width=130, height=30, force_terminal=True)
    torch.set_num_threads(1)  # as in the transcripts
    with contextlib.chdir(folder), ExitStack() as stack:
        # Snapshots of its own: those of the transcripts are used further on.
        document = read_solver_with("solver.prototxt", ["snapshot_prefix=live"])
        solver = stack.enter_context(Solver(document))
        bar = Progress(*live.columns(), console=console)
        shown = live.Live(bar, train.facts(solver))
        lines: list[str] = []

        def draw(event: Event) -> None:
            if isinstance(event, IterationDone) and event.iteration == at:
                for line in lines[-14:]:
                    console.print(line, markup=False, highlight=False, style=live.style(line))
                console.print(shown.render())

        with glog.logging_to():
            glog.TERMINAL.show = lines.append
            solver.listeners += [log.write, shown, draw]
            try:
                solver.solve()
            finally:
                glog.TERMINAL.show = glog.TERMINAL.plain
    # Without the fonts that the format would fetch from elsewhere.
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(path), title="cortado train", code_format=form)


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
    with tempfile.TemporaryDirectory() as folder, material.server(Path(folder, "www")) as address:
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
            if step.line.startswith("new "):
                material.write(place / step.folder / "digits", address)
            if step.live:
                live_display(place / step.folder, DOCS / "images" / "live_display.svg")
                parts.append("![the live display of train](images/live_display.svg)")
    (DOCS / "command_line.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
