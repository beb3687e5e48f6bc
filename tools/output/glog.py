"""The log's form: lines as Caffe's logging library writes them, to standard error and to files.

``I1121 23:18:38.123456  4242 file.py:88] message``: severity, month and day without the year (log
parsers take four digits), time, process and origin. Everything goes through Python's logging under
the name ``cortado``.
"""

from __future__ import annotations

import getpass
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ...proto.errors import ResourceError

ROOT = logging.getLogger(__package__.partition(".")[0])
_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


class Formatter(logging.Formatter):
    """The prefix has exactly four words; the last ends with its bracket."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created).strftime("%m%d %H:%M:%S.%f")
        severity = "F" if record.levelno >= logging.CRITICAL else record.levelname[0]
        origin = f"{record.filename}:{record.lineno}"
        return f"{severity}{stamp} {os.getpid():5d} {origin}] {record.getMessage()}"


class Terminal(logging.Handler):
    """Shows lines on standard error; a live display puts itself in the place of ``show``."""

    show: Callable[[str], object]

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(Formatter())
        self.show = self.plain

    def plain(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def emit(self, record: logging.LogRecord) -> None:
        self.show(self.format(record))


TERMINAL = Terminal()


@contextmanager
def logging_to(path: str = "", quiet: bool = False) -> Iterator[None]:
    """Log to standard error and, if given, to the file ``path`` while the block runs.

    With ``quiet`` standard error only gets warnings and errors.

    As with glog, the environment's ``GLOG_log_dir`` asks for a file of its own in that folder, and
    ``GLOG_minloglevel`` (0 to 3) leaves out what is less severe.
    """
    handlers: list[logging.Handler] = [TERMINAL]
    folder = os.environ.get("GLOG_log_dir")  # noqa: SIM112
    lowest = os.environ.get("GLOG_minloglevel", "0")  # noqa: SIM112
    if path:
        handlers.append(_file(Path(path)))
    if folder:
        handlers.append(_glog_file(Path(folder)))
    ROOT.setLevel(_LEVELS[min(int(lowest), 3)] if lowest.isdigit() else logging.INFO)
    TERMINAL.setLevel(logging.WARNING if quiet else logging.NOTSET)
    before, ROOT.handlers[:] = ROOT.handlers[:], handlers
    try:
        yield
    finally:
        ROOT.handlers[:] = before
        for handler in handlers[1:]:
            handler.close()


def _file(path: Path) -> logging.Handler:
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"log file {str(path)!r}: {error.strerror}") from None
    handler.setFormatter(Formatter())
    return handler


def _glog_file(folder: Path) -> logging.Handler:
    """A new file in ``folder`` under glog's name for it, and the link ``caffe.INFO`` to it."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    host = socket.gethostname().partition(".")[0]
    name = f"caffe.{host}.{getpass.getuser()}.log.INFO.{stamp}.{os.getpid()}"
    handler = _file(folder / name)
    link = folder / "caffe.INFO"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    return handler
