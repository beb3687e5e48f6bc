"""Race a net against the same net in plain and in tuned torch: training step and inference pass.

All run in one session, in turns, each in a process of its own, with the same weights; a ratio above
1 says that Cortado is faster. Plain: eager, default layout, float32. Tuned: channels-last, the same
precision, fused optimiser. A net is a model of the zoo or a prototxt; by default six classic ones.
Inference is timed for one image and for 64 at once, against torchvision's like model and OpenCV's
dnn module as well, where these have or read the net.

example:
  cortado bench lenet bvlc_alexnet --json bench.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..proto.errors import ConfigError
from . import device
from .flags import at_least, comma_list, numbers, one_of

if TYPE_CHECKING:
    from .benchmarks.contenders import Course

#: Images of an inference pass: latency, and throughput.
INFERENCE_BATCHES = (1, 64)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("nets", nargs="*", metavar="NET", help="names or prototxts (default: all)")
    parser.add_argument(
        "--batch",
        type=numbers,
        default=(),
        metavar="N,...",
        help="images a step (named nets; by default as is usual for training, 1 and 64 for test)",
    )
    parser.add_argument("--rounds", type=at_least(1), default=7, help="turns of each (default 7)")
    parser.add_argument("--phase", type=one_of("train", "test", "both"), default="both")
    parser.add_argument(
        "--precision", type=str.upper, default="FP32", help="FP32, TF32, BF16, FP16"
    )
    parser.add_argument("--gpu", default="", help="GPU id; the CPU without it")
    parser.add_argument(
        "--threads", type=at_least(0), default=0, help="threads (0: torch's choice)"
    )
    parser.add_argument(
        "--clock",
        type=one_of("wall", "cpu"),
        default="wall",
        help="cpu counts the processor's time instead, for machines that others use as well",
    )
    parser.add_argument("--compile", action="store_true", help="run our side compiled")
    parser.add_argument(
        "--update_in_backward", action="store_true", help="train our side with this field set"
    )
    parser.add_argument(
        "--against",
        default="plain,tuned,torchvision,torchvision-tuned,opencv",
        help="contenders: plain, tuned, tuned-compiled and, for test, torchvision, "
        "torchvision-tuned, opencv",
    )
    parser.add_argument(
        "--caffe",
        default="",
        metavar="PATH",
        help="a Caffe binary to race as well, by its own `time`, which leaves the update out",
    )
    parser.add_argument("--json", default="", metavar="FILE", help="write everything to FILE")


def run(args: argparse.Namespace) -> int:
    from ..model_zoo import index
    from .benchmarks import probe
    from .benchmarks.contenders import Course
    from .benchmarks.nets import BATCHES
    from .benchmarks.race import RaceError

    if args.caffe and args.clock == "cpu":
        raise ConfigError("--caffe can be timed by the wall's clock only, not with --clock cpu")
    where = device.first(args.gpu)
    limit = probe.ceiling(where, args.precision, args.clock)
    print(f"{_machine(where)}; ceiling {limit:,.0f} GFLOP/s at {args.precision}")
    names = args.nets or list(BATCHES)
    for name in names:
        if not Path(name).is_file():
            index.find(name)  # refuses a name that the zoo does not have
    found: list[Mapping[str, Any]] = []
    failed = []
    for name in names:
        for phase in ("train", "test") if args.phase == "both" else (args.phase,):
            usual = (0,) if phase == "train" or Path(name).is_file() else INFERENCE_BATCHES
            settings = settings_of(args, phase)
            for batch in args.batch or usual:
                course = Course(name, batch, phase == "train", where, args.precision, settings)
                try:
                    found.append(_one(course, args, limit))
                except RaceError as error:  # the other races are worth having
                    print(f"  failed: {error}")
                    failed.append(name)
                    continue
                if args.json:
                    report = {"machine": _machine(where), "ceiling": limit, "races": found}
                    Path(args.json).write_text(json.dumps(report, indent=1))
    for training in (True, False):
        if line := _means(found, training):
            print(line)
    if failed:
        raise RaceError(
            f"bench: {len(failed)} of {len(failed) + len(found)} races failed: {', '.join(failed)}"
        )
    return 0


def settings_of(args: argparse.Namespace, phase: str) -> tuple[tuple[str, Any], ...]:
    """The solver fields that make our side run as the flags say."""
    given = {"precision": args.precision != "FP32" and args.precision, "compile": args.compile}
    if phase == "train":
        given["update_in_backward"] = args.update_in_backward
    return tuple((name, value) for name, value in given.items() if value)


def _one(course: Course, args: argparse.Namespace, limit: float) -> Mapping[str, Any]:
    from .benchmarks import nets, peers
    from .benchmarks.race import race, summary

    images = nets.images(course.document(), course.phase)
    print(f"\n{course.net}, batch {images}, {'training step' if course.training else 'inference'}")
    names = ["ours"]
    for name in comma_list(args.against):
        reason = peers.missing(name, course)
        if not reason:
            names.append(name)
        elif not course.training:
            print(f"  {name:17} left out: {reason}")
    results, macs = race(course, names, args.rounds, args.threads, args.clock, args.caffe)
    found = dict(summary(course, results, macs, images))
    for name, each in found["contenders"].items():
        middle, low, high = each["ratio"]
        against = "" if name == "ours" else f"  ours is {middle:.2f}x ({low:.2f}-{high:.2f})"
        memory = f"{each['peak_mib']:.0f} MiB" if each["peak_mib"] else ""
        rate = f"{each['gflops']:7.0f} GFLOP/s ({each['gflops'] / limit:.0%})"
        print(
            f"  {name:17}{each['ms']:10.2f} ms {each['images_per_second']:9.1f} img/s "
            f"{memory:>11} {' ' * len(rate) if name in peers.PEERS[:2] else rate}"
            f"{against}"
        )
    return found


def _means(races: Sequence[Mapping[str, Any]], training: bool) -> str:
    """Geometric means over the nets that a contender ran, if it ran more than one."""
    ratios: dict[str, list[float]] = {}
    for race in races:
        if race["course"]["training"] == training:
            for name, each in race["contenders"].items():
                ratios.setdefault(name, []).append(each["ratio"][0])
    found = [
        f"{statistics.geometric_mean(each):.2f}x {name}"
        for name, each in ratios.items()
        if name != "ours" and len(each) > 1
    ]
    what = "training step" if training else "inference"
    return f"\n{what}, geometric mean: ours is {', '.join(found)}" if found else ""


def _machine(where: str) -> str:
    import torch

    if where.startswith("cuda"):
        name = torch.cuda.get_device_name(where)
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        name = f"CPU, {torch.get_num_threads()} threads, {capability}"
    return f"torch {torch.__version__}, {name}"
