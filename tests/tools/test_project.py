"""Promises of the project as a whole: what is packaged, and what code must not do."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import cortado

ROOT = Path(cortado.__file__).resolve().parent
ROOMS = ("examples", "layers", "model_zoo", "netdef", "proto", "solvers", "tools")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

# What reads files must not run code from them; ruff's S rules see more, these no one may silence.
FORBIDDEN = {
    "pickle": re.compile(r"^\s*(import|from) +(pickle|cPickle|dill|cloudpickle|joblib)\b", re.M),
    "eval": re.compile(r"(?<![\w.])(eval|exec)\("),
    "shell": re.compile(r"shell\s*=\s*True|os\.system\("),
    "weights_only": re.compile(r"weights_only\s*=\s*False"),
    "extractall": re.compile(r"\.extractall\((?!.*filter=)"),
    "yaml": re.compile(r"yaml\.(unsafe_)?load\("),
}


@pytest.mark.parametrize("rule", sorted(FORBIDDEN))
def test_no_code_runs_what_it_reads(rule):
    found = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if FORBIDDEN[rule].search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("pickle", "import pickle\n"),
        ("eval", "x = eval(text)"),
        ("shell", "run(line, shell=True)"),
        ("weights_only", "torch.load(path, weights_only=False)"),
        ("extractall", "tar.extractall(folder)"),
        ("yaml", "yaml.load(text)"),
    ],
)
def test_the_rules_find_what_they_forbid(rule, text):
    assert FORBIDDEN[rule].search(text)
    assert not FORBIDDEN[rule].search("net.eval()\nretrieval(text)\nyaml.safe_load(text)\n")


@pytest.fixture(scope="module")
def project() -> dict:
    file = ROOT / "pyproject.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def test_every_package_is_packaged(project):
    on_disk = {"cortado"} | {
        ".".join(("cortado", *path.parent.relative_to(ROOT).parts))
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == on_disk


def test_every_python_file_lies_in_a_package():
    for path in SOURCES:
        assert (path.parent / "__init__.py").exists(), path


def test_examples_are_packaged(project):
    patterns = project["tool"]["setuptools"]["package-data"]["cortado.examples"]
    endings = {pattern.rpartition(".")[2] for pattern in patterns}
    for path in (ROOT / "examples").rglob("*.prototxt"):
        assert path.suffix.lstrip(".") in endings
