"""Flags the way Caffe's command line takes them, on top of argparse.

gflags accepts ``-solver f``, ``--solver f``, ``-solver=f``, ``--solver=f``, booleans as
``--encoded``, ``--encoded=true`` or ``--noencoded``, and dashes for underscores. :func:`canonical`
rewrites all of these into the one spelling that argparse knows, so that a subcommand declares
plain ``--long_name`` options and nothing else.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from ..proto.errors import ConfigError, nearest

_TRUE = ("true", "t", "yes", "y", "1")
END_OF_FLAGS = "--"
_FALSE = ("false", "f", "no", "n", "0")


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigError where argparse would print and exit."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message} (see {self.prog} --help)")

    def flags(self) -> dict[str, argparse.Action]:
        """Every flag by its name without dashes, underscores for dashes."""
        return {
            _name(option): action for action in self._actions for option in action.option_strings
        }


def switch(parser: argparse._ActionsContainer, name: str, help: str, default: bool = False) -> None:
    """Add a boolean flag: ``--name`` and ``--noname``."""
    parser.add_argument(
        f"--{name}", action=argparse.BooleanOptionalAction, default=default, help=help
    )


def _name(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def is_flag(token: str) -> bool:
    """Whether ``token`` is a flag rather than a positional, a lone dash or a negative number."""
    return len(token) > 1 and token[0] == "-" and not token[1].isdigit() and token[1] != "."


def takes_next(token: str, flags: dict[str, argparse.Action]) -> bool:
    """Whether the flag ``token`` swallows the token after it."""
    action = flags.get(_name(token))
    return is_flag(token) and "=" not in token and action is not None and action.nargs is None


def canonical(tokens: Sequence[str], parser: Parser) -> list[str]:
    """``tokens`` in argparse's spelling; ConfigError, with the nearest flag, for an unknown one."""
    flags = parser.flags()
    out: list[str] = []
    waiting = list(reversed(expand_flag_files(tokens)))
    while waiting:
        token = waiting.pop()
        if token == END_OF_FLAGS:
            return [*out, "--", *reversed(waiting)]
        if not is_flag(token):
            out.append(token)
            continue
        spelling, equals, value = token.partition("=")
        name = _name(spelling)
        action = flags.get(name)
        positive = flags.get(name.removeprefix("no"))
        if action is None and isinstance(positive, argparse.BooleanOptionalAction):
            name, action, equals, value = name.removeprefix("no"), positive, "=", "false"
        if action is None:
            parser.error(
                f"unknown flag {spelling!r}{nearest(spelling, (f'--{known}' for known in flags))}"
            )
        if isinstance(action, argparse.BooleanOptionalAction):
            out.append(_boolean(parser, name, value if equals else "true"))
        elif equals:
            out.append(f"{action.option_strings[0]}={value}")
        elif action.nargs is None:
            if not waiting:
                parser.error(f"flag {spelling!r} needs a value")
            out.append(f"{action.option_strings[0]}={waiting.pop()}")
        else:
            out.append(action.option_strings[0])
    return out


def _boolean(parser: Parser, name: str, value: str) -> str:
    if value.lower() not in _TRUE + _FALSE:
        parser.error(f"flag --{name} must be true or false, got {value!r}")
    return f"--{name}" if value.lower() in _TRUE else f"--no-{name}"


def expand_flag_files(tokens: Iterable[str]) -> list[str]:
    """``tokens`` with each ``--flagfile=F`` replaced by the flags written in file F, one a line."""
    out: list[str] = []
    waiting = iter(tokens)
    for token in waiting:
        spelling, equals, value = token.partition("=")
        if not is_flag(token) or _name(spelling) != "flagfile":
            out.append(token)
            continue
        path = Path(value if equals else next(waiting, ""))
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"flag file {str(path)!r}: {error.strerror}") from None
        lines = (line.strip() for line in text.splitlines())
        for line in lines:
            if line and not line.startswith("#"):
                out += shlex.split(line)
    return out


def comma_list(text: str) -> list[str]:
    """The trimmed, non-empty items of a comma list."""
    return [item.strip() for item in text.split(",") if item.strip()]


def shape_flag(parser: argparse._ActionsContainer) -> None:
    """Add --shape, whose values :func:`parse_shape` reads."""
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="BLOB=SHAPE",
        help="shape of an input, such as data=1,3,227,227; may be repeated",
    )


def parse_shape(text: str) -> tuple[str, list[int]]:
    """The blob and the sizes of ``data=1,3,227,227``."""
    blob, equals, sizes = text.partition("=")
    numbers = comma_list(sizes)
    if not equals or not numbers or not all(n.isdecimal() and int(n) > 0 for n in numbers):
        raise ConfigError(f"--shape {text}: must be a blob and its sizes, as in data=1,3,227,227")
    return blob, [int(number) for number in numbers]


def one_of(*allowed: str) -> Callable[[str], str]:
    """An argparse type: one of ``allowed`` in any case, else an error that names them."""

    def check(value: str) -> str:
        if value.lower() not in allowed:
            raise argparse.ArgumentTypeError(f"must be {' or '.join(allowed)}, got {value!r}")
        return value.lower()

    check.choices = allowed  # type: ignore[attr-defined]  # for shell completion
    return check


def named(what: str, choices: Iterable[str]) -> Callable[[str], str]:
    """An argparse type: the name of a ``what``, else an error with the nearest of ``choices``."""
    allowed = tuple(choices)

    def check(value: str) -> str:
        if value not in allowed:
            raise argparse.ArgumentTypeError(
                f"unknown {what} {value!r}{nearest(value, allowed)} (must be {', '.join(allowed)})"
            )
        return value

    check.choices = allowed  # type: ignore[attr-defined]  # for shell completion
    return check


def numbers(value: str) -> tuple[int, ...]:
    """An argparse type: a comma list of whole numbers from 1."""
    words = comma_list(value)
    if not words or not all(word.isdigit() and int(word) for word in words):
        raise argparse.ArgumentTypeError(f"must be whole numbers from 1, got {value!r}")
    return tuple(int(word) for word in words)


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type: a whole number not below ``low``."""

    def check(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if number < low:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low}, got {value!r}")
        return number

    return check
