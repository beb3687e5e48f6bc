"""Kernels where they cannot be compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cortado.layers.native import library

Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """Loading with nothing kept from before."""
    monkeypatch.setenv("CORTADO_HOME", str(tmp_path))
    found: Load = library._load.__wrapped__
    return found


def test_a_library_is_kept(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library.obstacle() == ""
    assert load("winograd") is not None
    assert len(list((tmp_path / "native").glob("*.so"))) == 1
    monkeypatch.setattr(library, "_run", lambda *command: pytest.fail("compiled again"))
    assert load("winograd") is not None


def test_no_compiler(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert load("winograd") is None
    assert "no-such-compiler" in library.obstacle()


def test_a_compiler_that_fails(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    assert load("winograd") is None


def test_a_folder_that_cannot_be_written(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTADO_HOME", "/proc/nowhere")
    assert load("winograd") is None


def test_turned_off(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.VARIABLE, "0")
    assert load("winograd") is None
    assert library.VARIABLE in library.obstacle()
