"""State dicts: tensors by name, in safetensors and PyTorch files.

How images were prepared travels with them: as metadata of a safetensors file, or of the state dict
in a PyTorch file (its attribute ``_metadata``), which ``load_state_dict`` passes over. No file can
run code: safetensors holds numbers only, and PyTorch files are read with ``weights_only``, which
refuses every object that is no plain tensor or container.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..proto import preprocessing
from ..proto.atomic import write_atomically
from ..proto.caffe_pb2 import Preprocessing
from ..proto.errors import SnapshotError
from ..proto.recognise import SAFETENSORS

StateDict = dict[str, Tensor]

SAFETENSORS_SUFFIXES = (".safetensors",)
TORCH_SUFFIXES = (".pth", ".pt")

#: Where training scripts put the state dict among their other things; the averaged one is best.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
#: What wrappers (for several devices, compilation, training programs) put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
#: What torch's wrapper for several devices puts into names if it holds a part of a net only, as in
#: old recipes for AlexNet and VGG.
_INFIX = ".module."


def read_state_dict(
    path: str | os.PathLike[str], what: str
) -> tuple[StateDict, list[Preprocessing]]:
    """The tensors of a file that ``proto.recognise`` found to be ``what``, and how images were
    prepared, if it says so.

    SnapshotError with the reason if it is damaged, holds anything but tensors, or none.
    """
    content: Mapping[Any, Any]
    if what == SAFETENSORS:
        with _safetensors(path) as file:
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            known = (file.metadata() or {}).get(preprocessing.KEY)
    else:
        content = _unwrapped(_read_torch(path))
        known = _torch_metadata(content)
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise SnapshotError(f"{path}: holds no tensors by name")
    return _plain(tensors), _records(known, path)


def _plain(tensors: StateDict) -> StateDict:
    """The tensors without what wrappers put into their names."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return _plain({name.removeprefix(prefix): each for name, each in tensors.items()})
    return {name.replace(_INFIX, "."): tensor for name, tensor in tensors.items()}


def read_preprocessing(path: str | os.PathLike[str], what: str) -> list[Preprocessing]:
    """How images were prepared, as far as the file says so; of safetensors only the head is read.

    SnapshotError as for :func:`read_state_dict`.
    """
    if what != SAFETENSORS:
        return _records(_torch_metadata(_unwrapped(_read_torch(path))), path)
    with _safetensors(path) as file:
        return _records((file.metadata() or {}).get(preprocessing.KEY), path)


def _records(known: object, path: str | os.PathLike[str]) -> list[Preprocessing]:
    return preprocessing.from_json(known, path) if isinstance(known, str) else []


def _torch_metadata(content: Mapping[Any, Any]) -> object:
    metadata = getattr(content, "_metadata", None)
    return metadata.get(preprocessing.KEY) if isinstance(metadata, Mapping) else None


@contextlib.contextmanager
def _safetensors(path: str | os.PathLike[str]) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise SnapshotError(f"{path}: damaged safetensors file: {_first_line(error)}") from None


def _read_torch(path: str | os.PathLike[str]) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # about rare pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are no weights
        message = str(error)
        if "weights_only" in message or "Weights only" in message:
            raise SnapshotError(
                f"{path}: refused: besides tensors it holds Python objects, which could run code "
                f"when read{_offender(message)}; save its state_dict alone"
            ) from None
        raise SnapshotError(
            f"{path}: cannot be read as PyTorch weights: {_first_line(error)}"
        ) from None


def _offender(message: str) -> str:
    """The global that torch's refusal names, in brackets."""
    found = message.partition("GLOBAL ")[2].split(" ", 1)[0].strip("`'\",.")
    return f" ({found})" if found else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _unwrapped(content: Any) -> Mapping[Any, Any]:
    if not isinstance(content, Mapping):
        return {}
    for wrapper in _WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values()):
            return inner
    return content


def write_state_dict(
    path: str | os.PathLike[str],
    tensors: StateDict,
    dtype: torch.dtype = torch.float32,
    known: Sequence[Preprocessing] = (),
) -> None:
    """Write safetensors or, if the name ends in ``.pth`` or ``.pt``, a PyTorch file.

    Floating-point tensors are stored as ``dtype``, and ``known``, how images are prepared, with
    them. The file appears complete or not at all.
    """
    stored: OrderedDict[str, Tensor] = OrderedDict(
        (name, (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous())
        for name, tensor in tensors.items()
    )
    metadata = {preprocessing.KEY: preprocessing.to_json(known)} if known else {}
    if Path(path).suffix in TORCH_SUFFIXES:
        if metadata:
            stored._metadata = metadata  # type: ignore[attr-defined]
        with write_atomically(path) as file:
            torch.save(stored, file)
    else:
        from safetensors.torch import save

        content = save(stored, metadata={"format": "pt", **metadata})
        with write_atomically(path) as file:
            file.write(content)
