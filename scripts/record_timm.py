"""Record what timm calls the parameters of the nets that the zoo has too, and what it computes.

Writes tests/goldens/timm/models.json.gz: for each model of timm the names and shapes of its state
dict, and for one of each family the first scores for an image, with weights that the tests can make
again. Needs ``pip install timm`` (1.0.31 was used), which nothing else here does:

  PYTHONPATH=tests python scripts/record_timm.py
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import timm
import torch

from support.made_up_weights import made_up_image, made_up_state

OUT = Path(__file__).resolve().parent.parent / "tests" / "goldens" / "timm" / "models.json.gz"
#: timm's name for each model of the zoo; those with other names there are not the same nets.
MODELS = {
    **{name: name for depth in (11, 13, 16, 19) for name in (f"vgg{depth}", f"vgg{depth}_bn")},
    **{name: name for name in (f"resnet{depth}" for depth in (18, 34, 50, 101, 152))},
    "resnext50_32x4d": "resnext50_32x4d",
    "wide_resnet50_2": "wide_resnet50_2",
    "densenet121": "densenet121",
    "inception_v3": "inception_v3",
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv3_small_100": "mobilenet_v3_small",
    "mobilenetv3_large_100": "mobilenet_v3_large",
    "efficientnet_b0": "efficientnet_b0",
    "convnext_tiny": "convnext_tiny",
    "vit_base_patch16_224": "vit_b_16",
}  # fmt: skip
COMPUTED = (
    "vgg11", "resnext50_32x4d", "densenet121", "inception_v3", "mobilenetv2_100",
    "mobilenetv3_large_100", "efficientnet_b0", "convnext_tiny", "vit_base_patch16_224",
)  # fmt: skip
SCORES = 20


def record(name: str) -> dict[str, Any]:
    net = timm.create_model(name, pretrained=False).eval()
    state = net.state_dict()
    shapes = {key: list(value.shape) for key, value in state.items() if value.is_floating_point()}
    entry: dict[str, Any] = {"model": MODELS[name], "shapes": shapes}
    if name in COMPUTED:
        net.load_state_dict(made_up_state(shapes), strict=False)
        facts: Any = net.default_cfg
        with torch.no_grad():
            scores = net(made_up_image(facts["input_size"]))
        entry["scores"] = [float(f"{value:.7g}") for value in scores[0, :SCORES]]
    return entry


def main() -> None:
    content = json.dumps({name: record(name) for name in MODELS}, separators=(",", ":"))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_bytes(gzip.compress(content.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
