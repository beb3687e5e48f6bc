"""Write docs/model_zoo.md and the README of every model from the zoo's index.

Run it after an edit of model_zoo/index.toml; a test compares its pages with what is there.
"""

from __future__ import annotations

from pathlib import Path

from cortado.model_zoo import index
from cortado.model_zoo.index import Model

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "model_zoo.md"

INTRODUCTION = """\
# The model zoo

{count} published nets, each a folder in `model_zoo/` with one net file for training, testing and
use, the recipe it was trained with, and a README. Their sums below are counted on the nets for use,
and tests hold them against the originals: with the same weights each of the {originals} nets that
torchvision has too gives the same outputs and, for a batch in training, the same loss, gradients
and running statistics; BVLC's agree with what Caffe computed. Parameters and operations are those
that torch's counter finds in our nets and in torchvision's.

```sh
cortado zoo list                        # this table
cortado zoo show resnet50               # one model, its weights and their licences
cortado zoo pull resnet50               # download weights; resumed if interrupted
cortado zoo verify resnet50             # check them, and that they fit
cortado zoo write resnet50 --plain      # its files, as prototxt that Caffe's tools read
cortado eval resnet50 --data val_lmdb   # top-1, top-5, each class, prepared as it wants it
```

```python
net = cortado.zoo.load("resnet50", weights="zoo:resnet50")
probabilities = net(data=images)["prob"]
names = cortado.zoo.class_names("resnet50")
```

`zoo:MODEL` stands for the model's first weights, `zoo:MODEL@NAME` for others, wherever a file of
weights may stand. Downloads come from the publishers' own addresses and are checked against their
digests; they are kept in `~/.cache/cortado`, or where `CORTADO_HOME` says. A machine without
internet takes them from a folder with the files: `--mirror file:///media/usb`, or `CORTADO_MIRROR`.
`cortado cache` shows what is kept; `cortado cache clear weights` removes it.

Weights of torchvision's keep the names of its modules: `layer1.0.conv1` there is `layer1/0/conv1`
here, and a BatchNorm is a pair of a BatchNorm and a Scale layer. `cortado convert` turns weights
from one format into another, and with `--verify` proves it layer by layer. A .caffemodel brings its
own net; the data that it was trained on need not be there, only where nothing tells their size
(Caffe's files do not) it is asked for: `--shape data=1,3,227,227`. A file may have torchvision's
names, of today or of old versions, or timm's, in any order; the rules are in
`model_zoo/names.toml`. The moving averages of a BatchNorm become sums with the weight to which
Caffe's tend, so fine-tuning moves them as torch does.

## Evaluating

`cortado eval MODEL --data DATA` takes a model of the zoo, a prototxt with `--weights`, or a
.caffemodel; and an LMDB or LevelDB, a folder with a folder for each class, or a list of images.
Images are prepared as the model wants it ([data](data.md)). On a database the result is that of the
net's own Accuracy layers under `cortado test`, over every record once.

| flag | effect |
|---|---|
| `--crops 10` | the mean over four corners, centre and their mirror images, as for AlexNet |
| `--flip` | the mean over the image and its mirror image |
| `--resize`, `--crop`, `--mean`, `--scale`, `--channel_order` | in place of the model's own |
| `--labels FILE` | names of the classes; else the zoo's, else a `labels.txt` beside the model |
| `--confusion FILE.png` | the confusion matrix |
| `--json FILE`, `--csv FILE` | all results; a line for each image |
| `--limit N`, `--rows N`, `--batch N` | so many images, rows of the tables, crops at once |

Folders are matched with classes by name, or in their order where there are as many. Images that
cannot be decoded, and labels that the model has no class for, are listed by key, counted and left
out.

```python
from cortado.layers.data.preprocessing import Views
from cortado.tools.classification.model import open_model

model = open_model("lenet_digits")  # or a prototxt and weights, or a snapshot
probabilities = model.classify(["a.png", "b.png"], Views(crops=10))
print(model.names[int(probabilities[0].argmax())])
```

## Models

"""


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def table() -> str:
    lines = [
        "| model | input | parameters | MACs (millions) | top-1 % | top-5 % | from |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for model in index.models().values():
        shape = "×".join(map(str, model.input))
        lines.append(
            f"| [{model.name}](../model_zoo/{model.name}/) | {shape} | {model.parameters:,} | "
            f"{model.macs / 1e6:,.1f} | {number(model.top1)} | {number(model.top5)} | "
            f"{model.source} |"
        )
    return "\n".join(lines) + "\n"


def page() -> str:
    models = index.models().values()
    originals = sum(bool(model.torchvision) for model in models)
    return INTRODUCTION.format(count=len(models), originals=originals) + table()


def weights(model: Model) -> list[str]:
    """The lines of a README on a model's weights; torchvision's are not listed, it lists them."""
    lines = []
    for entry in model.own_weights:
        where = f"`{entry.shipped.name}`" if entry.shipped else "downloaded from "
        if entry.remote is not None:
            where += f"<{entry.remote.url}> (SHA-1 `{entry.remote.checksum.digits}`)"
        note = f"; {entry.note}" if entry.note else ""
        lines.append(f"- `zoo:{entry.full_name}`: {where}; licence: {entry.licence}{note}.")
    if model.torchvision:
        lines.append(
            f"- `zoo:{model.name}`: torchvision's `{model.torchvision}`, downloaded from where its "
            "weight enums say; licence BSD-3-Clause, unless `cortado zoo show` says otherwise; "
            "the terms of ImageNet may apply."
        )
    lines = lines or ["None are published in a form that is read here; train it."]
    if model.timm:
        lines += [
            "",
            f"State dicts with the names of timm's `{model.timm}` are read too: "
            f'`zoo.load("{model.name}", "file.safetensors")`, or `cortado convert file.safetensors '
            f"{model.name}.caffemodel --model zoo:{model.name}`.",
        ]
    return [*lines, "", model.notes] if model.notes else lines


def readme(model: Model) -> str:
    parts = [
        f"# {model.title}",
        "",
        f"{model.paper}.",
        "",
        f"- input: {'×'.join(map(str, model.input))}, {model.preprocessing}",
        f"- parameters: {model.parameters:,}",
        f"- multiply-accumulate operations for one image: {model.macs:,}",
    ]
    if model.top1 is not None:
        top5 = f", top-5 {model.top5:g} %" if model.top5 is not None else ""
        parts.append(f"- published accuracy: top-1 {model.top1:g} %{top5} ({model.source})")
    parts += ["", "## Weights", "", *weights(model)]
    notes = model.folder / "notes.md"
    if notes.exists():
        parts += ["", notes.read_text("utf-8").strip()]
    parts += [
        "",
        "## Use",
        "",
        "```sh",
        f"cortado zoo write {model.name}      # to ./{model.name}",
        f"cortado train --solver {model.name}/solver.prototxt",
        "```",
    ]
    return "\n".join(parts) + "\n"


def pages() -> dict[Path, str]:
    """Every page by its path."""
    result = {TABLE: page()}
    for model in index.models().values():
        result[model.folder / "README.md"] = readme(model)
    return result


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
