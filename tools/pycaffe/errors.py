"""Errors as scripts written for pycaffe expect them.

Where Caffe ends the process, and where its bindings throw, a script here gets a RuntimeError. An
error that a Python layer raised comes through as it was raised.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ...layers.python import MethodError
from ...proto.errors import CortadoError, LayerError


@contextmanager
def caffe_errors(place: str = "") -> Iterator[None]:
    """Turn Cortado's errors in the block into those that pycaffe raises; ``place`` goes first."""
    try:
        yield
    except (CortadoError, LayerError) as error:
        raise as_caffe(error, place) from error


def as_caffe(error: CortadoError | LayerError, place: str = "") -> BaseException:
    """What a script gets to see for ``error``."""
    original = _raised_by_layer(error)
    if original is not None:
        return original
    return RuntimeError(f"{place}: {error}" if place else str(error))


def _raised_by_layer(error: BaseException) -> BaseException | None:
    """What the code of a Python layer raised, if that is where ``error`` comes from."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MethodError):
        cause = cause.__cause__
    return cause.__cause__ if cause is not None else None


def check_file(path: str | os.PathLike[str]) -> str:
    """``path`` as text; RuntimeError if it cannot be opened."""
    name = os.fspath(path)
    try:
        with open(name, "rb"):
            pass
    except OSError:
        raise RuntimeError(f"Could not open file {name}") from None
    return name
