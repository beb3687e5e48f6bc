"""Find, download and write out the models of the zoo.

cortado zoo list               every model: parameters, operations, accuracy
cortado zoo show MODEL         one model and its published weights
cortado zoo pull MODEL[@W]     download weights (the default ones, or those called W)
cortado zoo verify MODEL[@W]   check downloaded weights and that they fit the model
cortado zoo write MODEL        write the model's files to --out, with --plain as plain prototxt

Downloads are kept in the folder that CORTADO_HOME names (~/.cache/cortado without it). --weights
zoo:MODEL[@W] takes them wherever a command wants weights.

example:
  cortado zoo pull resnet18 --mirror file:///media/usb
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..proto.errors import ConfigError, ResourceError
from .flags import named, switch
from .output.bars import transfer

if TYPE_CHECKING:
    from ..model_zoo.index import Model


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", type=named("action", ACTIONS), metavar="ACTION", help=", ".join(ACTIONS)
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names of models")
    parser.add_argument("--mirror", default="", help="address of a folder to download from instead")
    parser.add_argument("--out", default="", help="folder for write (default: the model's name)")
    switch(parser, "plain", "write prototxt without blocks, as Caffe reads it")


def run(args: argparse.Namespace) -> int:
    action = ACTIONS[args.action]
    if not args.models and action is not list_models:
        raise ConfigError(f"cortado zoo {args.action}: the name of a model is needed")
    action(args)
    return 0


def list_models(args: argparse.Namespace) -> None:
    from ..model_zoo import index

    chosen = [index.find(name) for name in args.models] or list(index.models().values())
    print(table(chosen))


def table(models: Sequence[Model]) -> str:
    """One line for each model."""
    header = ("model", "input", "parameters", "MACs", "top-1", "top-5")
    rows = [header, *(_row(model) for model in models)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _row(model: Model) -> tuple[str, ...]:
    return (
        model.name,
        "x".join(map(str, model.input)),
        f"{model.parameters:,}",
        f"{model.macs / 1e6:,.1f} M",
        percent(model.top1),
        percent(model.top5),
    )


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} %"


def show(args: argparse.Namespace) -> None:
    from ..model_zoo import index

    for number, name in enumerate(args.models):
        model = index.find(name)
        if number:
            print()
        print(f"{model.name}: {model.title}\n{model.paper}\n")
        print(f"  definition   {model.net_file}")
        print(f"  input        {'x'.join(map(str, model.input))}, {model.preprocessing}")
        print(f"  parameters   {model.parameters:,}")
        print(f"  MACs         {model.macs:,}")
        if model.top1 is not None:
            print(f"  accuracy     {percent(model.top1)} {percent(model.top5)} ({model.source})")
        for entry in model.weights().values():
            accuracy = f"{percent(entry.top1)} {percent(entry.top5)}".strip()
            where = entry.shipped or (entry.remote.url if entry.remote else "")
            print(f"  weights      zoo:{entry.full_name}  {accuracy}\n               {where}")
            print(f"               licence: {entry.licence}")
        if model.timm:
            print(f"  also read    files with the names of timm's {model.timm}")
        if model.notes:
            print(f"  note         {model.notes}")


def pull(args: argparse.Namespace) -> None:
    from ..model_zoo import zoo

    for name in args.models:
        with transfer(name) as progress:
            path = zoo.pull(name, mirror=args.mirror or None, progress=progress)
        print(path)


def verify(args: argparse.Namespace) -> None:
    from ..model_zoo import zoo

    for name in args.models:
        verdict = zoo.verify(name)
        print(f"{name}: {verdict.path} is as published and fits: {verdict.copied} layers")
        if verdict.left:
            print(f"  layers without weights in it: {', '.join(verdict.left)}")
        if verdict.ignored:
            print(f"  in the file only: {', '.join(verdict.ignored)}")


def write(args: argparse.Namespace) -> None:
    from ..model_zoo import index

    if args.out and len(args.models) > 1:
        raise ConfigError("cortado zoo write: --out takes one model at a time")
    for name in args.models:
        for path in write_model(index.find(name), Path(args.out or name), args.plain):
            print(path)


def write_model(model: Model, folder: Path, plain: bool) -> list[Path]:
    """Write the model's prototxt files and README to ``folder``; none may be there already."""
    from ..proto.files import read_net, write_text

    sources = [*sorted(model.folder.glob("*.prototxt")), *model.folder.glob("README.md")]
    targets = [folder / source.name for source in sources]
    if existing := [str(target) for target in targets if target.exists()]:
        raise ConfigError(f"cortado zoo write: {', '.join(existing)} exist already; choose --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, target in zip(sources, targets, strict=True):
            if plain and source.name == model.net_file.name:
                write_text(target, read_net(source).message)
            else:
                target.write_bytes(source.read_bytes())
    except OSError as error:
        raise ResourceError(f"{folder}: {error.strerror or error}") from None
    return targets


ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "list": list_models,
    "show": show,
    "pull": pull,
    "verify": verify,
    "write": write,
}
