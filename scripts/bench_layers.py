"""Each layer's forward and backward pass against the plain torch function, on a typical shape.

Both run in turn, in blocks, on the same values and weights, on one thread; what counts is the ratio
of processor time within a round, and its median (the wall clock also shows what else the machine
does). As in training, the C library keeps freed memory. `--write` puts the result into
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from google.protobuf import text_format
from torch import Tensor

from cortado.layers.base import Context, Layer
from cortado.layers.registry import find
from cortado.netdef.execution import keep_freed_memory
from cortado.proto import caffe_pb2

BENCHMARKS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
BLOCK = 0.04  # seconds that one block of passes takes at least
PLANES = (16, 64, 28, 28)
ITEMS = (64, 1024)
SEQUENCE = (8, 128, 256)
FILL = 'weight_filler { type: "xavier" }'


@dataclass(frozen=True)
class Entry:
    """A declaration, the shapes of its bottoms, and torch's way to the same top.

    ``classes`` of a last bottom with labels; 0 for none.
    """

    type: str
    text: str
    shapes: tuple[tuple[int, ...], ...]
    torch: Callable[..., Tensor]
    classes: int = 0

    def build(self) -> Layer:
        message = text_format.Parse(self.text, caffe_pb2.LayerParameter())
        message.type = self.type
        message.bottom.extend(f"x{index}" for index in range(len(self.shapes)))
        message.top.append("y")
        cls = find(self.type)
        assert issubclass(cls, Layer)
        layer = cls.from_message(message, Context(self.shapes, 1))
        layer.materialize()
        return layer.train()

    def inputs(self) -> list[Tensor]:
        found = [torch.rand(shape) + 0.1 for shape in self.shapes]
        if self.classes:
            found[-1] = torch.randint(self.classes, self.shapes[-1]).float()
        return [x if self.classes and x is found[-1] else x.requires_grad_() for x in found]


def plain(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of the bottoms alone, for a table whose functions know the layer too."""
    return lambda layer, *inputs: function(*inputs)


ENTRIES = [
    Entry("ReLU", "", (PLANES,), plain(F.relu)),
    Entry("PReLU", "", (PLANES,), lambda layer, x: F.prelu(x, layer.weight)),
    Entry("ELU", "", (PLANES,), plain(F.elu)),
    Entry("GELU", "", (PLANES,), plain(F.gelu)),
    Entry("SiLU", "", (PLANES,), plain(F.silu)),
    Entry("Swish", "swish_param { beta: 2 }", (PLANES,), plain(lambda x: x * torch.sigmoid(2 * x))),
    Entry("Mish", "", (PLANES,), plain(F.mish)),
    Entry("HardSwish", "", (PLANES,), plain(F.hardswish)),
    Entry("Sigmoid", "", (PLANES,), plain(torch.sigmoid)),
    Entry("TanH", "", (PLANES,), plain(torch.tanh)),
    Entry("BNLL", "", (PLANES,), plain(F.softplus)),
    Entry("AbsVal", "", (PLANES,), plain(torch.abs)),
    Entry("Clip", "clip_param { min: 0.2 max: 0.8 }", (PLANES,),
          plain(lambda x: x.clamp(0.2, 0.8))),
    Entry("Power", "power_param { power: 2 scale: 0.5 shift: 1 }", (PLANES,),
          plain(lambda x: (1 + 0.5 * x) ** 2)),
    Entry("Exp", "", (PLANES,), plain(torch.exp)),
    Entry("Log", "", (PLANES,), plain(torch.log)),
    Entry("Dropout", "", (PLANES,), plain(F.dropout)),
    Entry("Convolution", f"convolution_param {{ num_output: 64 kernel_size: 3 pad: 1 {FILL} }}",
          (PLANES,), lambda layer, x: F.conv2d(x, layer.weight, layer.bias, padding=1)),
    Entry("Deconvolution",
          f"convolution_param {{ num_output: 32 kernel_size: 4 pad: 1 stride: 2 {FILL} }}",
          (PLANES,), lambda layer, x: F.conv_transpose2d(x, layer.weight, layer.bias, 2, 1)),
    Entry("InnerProduct", f"inner_product_param {{ num_output: 512 {FILL} }}", (ITEMS,),
          lambda layer, x: F.linear(x, layer.weight, layer.bias)),
    Entry("Embed", f"embed_param {{ num_output: 256 input_dim: 1000 bias_term: false {FILL} }}",
          ((64, 128),), lambda layer, x: F.embedding(x.long(), layer.weight), 1000),
    Entry("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", (PLANES,),
          plain(lambda x: F.max_pool2d(x, 2))),
    Entry("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }", (PLANES,),
          plain(lambda x: F.avg_pool2d(x, 3, 2, 1, True))),
    Entry("LRN", "lrn_param { local_size: 5 alpha: 1e-4 }", (PLANES,),
          plain(lambda x: F.local_response_norm(x, 5))),
    Entry("BatchNorm", "", (PLANES,),
          plain(lambda x: F.batch_norm(x, torch.zeros(64), torch.ones(64), training=True))),
    Entry("LayerNorm", "", (SEQUENCE,),
          lambda layer, x: F.layer_norm(x, (256,), layer.weight, layer.bias)),
    Entry("RMSNorm", "", (SEQUENCE,), lambda layer, x: F.rms_norm(x, (256,), layer.weight, 1e-6)),
    Entry("GroupNorm", "group_norm_param { num_groups: 8 }", (PLANES,),
          lambda layer, x: F.group_norm(x, 8, layer.weight, layer.bias)),
    Entry("InstanceNorm", "", (PLANES,), plain(F.instance_norm)),
    Entry("Normalize", "", (ITEMS,), plain(F.normalize)),
    Entry("Scale", "scale_param { bias_term: true }", (PLANES,),
          lambda layer, x: x * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)),
    Entry("Eltwise", "", (PLANES, PLANES), plain(torch.add)),
    Entry("Concat", "", (PLANES, PLANES), plain(lambda a, b: torch.cat((a, b), 1))),
    Entry("Reduction", "reduction_param { axis: 1 }", (ITEMS,), plain(lambda x: x.sum(1))),
    Entry("Tile", "tile_param { tiles: 2 }", (ITEMS,), plain(lambda x: x.repeat(1, 2))),
    Entry("Crop", "crop_param { offset: 2 }", (PLANES, (16, 64, 24, 24)),
          plain(lambda x, y: x[:, :, 2:26, 2:26])),
    Entry("Softmax", "", (ITEMS,), plain(lambda x: x.softmax(1))),
    Entry("SoftmaxWithLoss", "", (ITEMS, (64,)),
          plain(lambda x, y: F.cross_entropy(x, y.long())), 1024),
    Entry("SoftmaxWithLoss", "", ((4, 21, 64, 64), (4, 64, 64)),
          plain(lambda x, y: F.cross_entropy(x, y.long())), 21),
    Entry("SigmoidCrossEntropyLoss", "", (ITEMS, ITEMS),
          plain(lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction="sum") / 64), 2),
    Entry("EuclideanLoss", "", (ITEMS, ITEMS),
          plain(lambda a, b: F.mse_loss(a, b, reduction="sum") / 128)),
    Entry("SmoothL1Loss", "", (ITEMS, ITEMS),
          plain(lambda a, b: F.smooth_l1_loss(a, b, reduction="sum") / 64)),
    Entry("MatMul", "", ((8, 128, 64), (8, 64, 128)), plain(torch.matmul)),
    Entry("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", (PLANES,),
          plain(lambda x: x.permute(0, 2, 3, 1))),
    Entry("Interpolation", "interpolation_param { factor: 2 }", (PLANES,),
          plain(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"))),
    Entry("MultiHeadAttention", "multi_head_attention_param { num_heads: 8 }", (SEQUENCE,),
          lambda layer, x: F.multi_head_attention_forward(
              x.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1), 256, 8,
              layer.in_proj_weight, layer.in_proj_bias, None, None, False, 0.0,
              layer.out_proj_weight, layer.out_proj_bias, need_weights=False)[0].transpose(0, 1)),
    Entry("GRU", "recurrent_param { num_output: 128 }", ((20, 16, 128),),
          lambda layer, x: torch.gru(x, torch.zeros(1, 16, 128), list(layer.parameters()),
                                     True, 1, 0.0, True, False, False)[0]),
]  # fmt: skip


def passes(function: Callable[..., Any], inputs: Sequence[Tensor], others: Sequence[Tensor]):
    """A forward and a backward pass, to the inputs and to ``others``, as often as asked."""
    graded = [x for x in (*inputs, *others) if x.requires_grad]

    def run(count: int) -> None:
        for _ in range(count):
            y = function(*inputs)
            y = y if isinstance(y, Tensor) else y[0]
            torch.autograd.grad(y, graded, torch.ones_like(y), allow_unused=True)

    return run


def ratios(ours: Callable[[int], None], theirs: Callable[[int], None], rounds: int) -> list[float]:
    """Our time over theirs, round by round."""
    counts = []
    for work in (ours, theirs):
        work(2)
        began = time.process_time()
        work(1)
        counts.append(max(1, math.ceil(BLOCK / (time.process_time() - began))))
    found = []
    for index in range(rounds):
        times = [0.0, 0.0]
        for side in (0, 1) if index % 2 else (1, 0):
            began = time.process_time()
            (ours, theirs)[side](counts[side])
            times[side] = (time.process_time() - began) / counts[side]
        found.append(times[0] / times[1])
    return found


def compare(entry: Entry, rounds: int) -> list[float]:
    layer, inputs = entry.build(), entry.inputs()
    parameters = list(layer.parameters())
    return ratios(
        passes(layer, inputs, parameters),
        passes(lambda *x: entry.torch(layer, *x), inputs, parameters),
        rounds,
    )


def report(rounds: int) -> str:
    found = {}
    for entry in ENTRIES:
        shape = " x ".join(str(size) for size in entry.shapes[0])
        options = re.sub(r"^\w+ \{ | \}$|" + re.escape(f" {FILL}"), "", entry.text)
        found[f"{entry.type} ({shape}{'; ' + options if options else ''})"] = compare(entry, rounds)
        name, values = next(reversed(found.items()))
        print(f"{name}: {statistics.median(values):.2f}")
    order = sorted(found, key=lambda name: -statistics.median(found[name]))
    medians = [statistics.median(values) for values in found.values()]
    good = sum(value <= 1.05 for value in medians)
    lines = [
        "## Layers",
        "",
        "`python scripts/bench_layers.py`, one thread: processor time of a layer's forward and",
        f"backward over the plain torch function's, in turn, median of {rounds} ratios and their",
        "range; for both the C library keeps freed memory, as in training.",
        f"Of {len(found)} layers {good} are at or below 1.05; the geometric mean is",
        f"{statistics.geometric_mean(medians):.2f}. The worst five, and those with a goal below 1:",
        "",
        "| layer | ratio | range |",
        "|---|---|---|",
    ]
    special = [name for name in order[5:] if name.startswith(("LRN", "SoftmaxWithLoss"))]
    for name in [*order[:5], *special]:
        values = found[name]
        lines.append(
            f"| {name} | **{statistics.median(values):.2f}** | "
            f"{min(values):.2f} to {max(values):.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help="put the result into docs")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    section = report(args.rounds)
    print(section)
    if args.write:
        text = BENCHMARKS.read_text(encoding="utf-8")
        text = re.sub(r"## Layers\n.*?(?=^## |\Z)", "", text, flags=re.S | re.M).rstrip()
        BENCHMARKS.write_text(f"{text}\n\n{section}", encoding="utf-8")


if __name__ == "__main__":
    main()
