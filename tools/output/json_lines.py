"""Events for machines: one JSON object a line on standard output."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import Any

from ...solvers.events import Event


def encode(event: Event, now: float) -> str:
    """``{"event": "<class>", "time": <seconds since 1970>, <fields>}``.

    JSON has no infinite numbers; they become the strings "nan", "inf" and "-inf".
    """
    fields = dataclasses.asdict(event)  # type: ignore[call-overload]  # every event is a dataclass
    return json.dumps(
        {"event": type(event).__name__, "time": round(now, 6)} | _plain(fields), allow_nan=False
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value:g}"
    return value


def write(event: Event) -> None:
    """Print ``event``; a listener of solver events."""
    print(encode(event, time.time()), flush=True)
