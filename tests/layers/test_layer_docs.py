"""The page on layers: generated, up to date, and complete."""

import subprocess
import sys
from pathlib import Path

import pytest

import cortado
from cortado.layers.base import Layer
from cortado.layers.registry import find, layer_types

ROOT = Path(cortado.__file__).resolve().parent


def test_the_page_is_what_the_layers_say() -> None:
    script = ROOT / "scripts" / "generate_layer_docs.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_type_has_a_section() -> None:
    page = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    for name in layer_types():
        assert f"\n## {name}\n" in page


@pytest.mark.parametrize(
    "cls",
    [cls for name in layer_types() if issubclass(cls := find(name), Layer)],
    ids=lambda cls: cls.type,
)
def test_every_layer_is_compared_with_torch(cls: type[Layer]) -> None:
    assert "\n    Torch: " in (cls.__doc__ or "")
