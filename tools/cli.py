"""The command ``cortado``: finds the subcommand, reads its flags, runs it, reports what went wrong.

Every module of this package that defines ``configure(parser)`` and ``run(args) -> int`` is a
subcommand of the module's name; the first line of its docstring is its help line. Modules here
import at their top only what is light (never torch, numpy or OpenCV), so that ``cortado --help``
answers at once.
"""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from .. import __version__
from ..proto.errors import ConfigError, CortadoError, ResourceError, nearest
from .flags import Parser, canonical, expand_flag_files, is_flag, switch, takes_next
from .output.glog import logging_to

INTERRUPTED = 128 + signal.SIGINT
# Not __name__, which is "__main__" under python -m.
PACKAGE = str(__package__)


def load(name: str) -> ModuleType | None:
    """The module of the subcommand ``name``, or None if there is no such subcommand."""
    if name not in module_names():
        return None
    module = import_module(f"{PACKAGE}.{name}")
    return module if hasattr(module, "configure") and hasattr(module, "run") else None


def module_names() -> list[str]:
    """Modules of this package; its subpackages hold what the subcommands share."""
    found = pkgutil.iter_modules(import_module(PACKAGE).__path__)
    return [module.name for module in found if not module.ispkg]


def subcommands() -> dict[str, ModuleType]:
    """Every subcommand by name."""
    found = {name: load(name) for name in module_names()}
    return {name: module for name, module in sorted(found.items()) if module is not None}


def help_line(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().split("\n")[0]


def build_parser(name: str, module: ModuleType) -> Parser:
    """The parser of one subcommand, with the flags that all of them share."""
    parser = Parser(f"cortado {name}", (module.__doc__ or "").strip())
    module.configure(parser)
    shared = parser.add_argument_group("shared flags")
    shared.add_argument("--help", "--helpshort", "-h", action="help", help="show this and exit")
    # --flagfile is expanded before argparse reads the flags; it is declared here for the help.
    shared.add_argument("--flagfile", metavar="FILE", help="read more flags from FILE, one a line")
    shared.add_argument("--log_file", default="", help="append the log lines to this file too")
    shared.add_argument(
        "--import",
        dest="imports",
        metavar="MODULE",
        default="",
        help="Python modules with layer types of your own, with commas between; they are run",
    )
    switch(shared, "quiet", "show only warnings and errors; a log file still gets every line")
    switch(shared, "debug", "show the traceback of an error")
    return parser


def usage() -> str:
    """What ``cortado`` and ``cortado --help`` print."""
    commands = subcommands()
    width = max(len(name) for name in commands)
    lines = [f"  {name:<{width}}  {help_line(module)}" for name, module in commands.items()]
    return "\n".join(
        [
            "usage: cortado COMMAND [flags]",
            "",
            "Train, test and inspect neural networks declared in prototxt files.",
            "",
            "commands:",
            *lines,
            "",
            "cortado COMMAND --help shows the flags of a command; cortado --version the version.",
        ]
    )


def split(tokens: Sequence[str]) -> tuple[str, ModuleType, list[str]]:
    """The subcommand among ``tokens``, wherever it stands, and the tokens that are left.

    A token that a flag before it swallows (``--model train``) is no subcommand. Raises ConfigError,
    with the nearest name, if there is none.
    """
    for index, token in enumerate(tokens):
        name = token.replace("-", "_")
        if is_flag(token) or (module := load(name)) is None:
            continue
        if index and takes_next(tokens[index - 1], build_parser(name, module).flags()):
            continue
        return name, module, [*tokens[:index], *tokens[index + 1 :]]
    words = [token for token in tokens if not is_flag(token)]
    if not words:
        raise ConfigError(f"cortado: no command given with {' '.join(tokens)} (see cortado --help)")
    hint = nearest(words[0], subcommands())
    raise ConfigError(f"cortado: unknown command {words[0]!r}{hint} (see cortado --help)")


def dispatch(tokens: Sequence[str]) -> int:
    """Run the command line ``tokens`` (without the program's name) and return its exit code."""
    first = tokens[0].lstrip("-") if tokens else "help"
    if first in ("help", "helpshort", "h") and len(tokens) < 2:
        print(usage())
        return 0
    if first == "version":
        print(f"cortado version {__version__}")
        return 0
    name, module, rest = split(expand_flag_files(tokens))
    parser = build_parser(name, module)
    args = parser.parse_args(canonical(rest, parser))
    with logging_to(args.log_file, quiet=args.quiet):
        if args.imports:
            from ..layers.imports import import_modules

            import_modules(args.imports.split(","))
        return int(module.run(args))


def report(error: BaseException) -> int:
    """Say in one message what went wrong; the exit code that belongs to it."""
    if isinstance(error, KeyboardInterrupt):
        print("cortado: interrupted", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, CortadoError):
        print(f"cortado: error: {str(error).removeprefix('cortado: ')}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        detail = str(error).split("\n")[0]
        hint = "try a smaller batch_size"
        print(f"cortado: error: out of memory; {hint}. {detail}".rstrip(), file=sys.stderr)
        return ResourceError.exit_code
    detail = str(error).strip().split("\n")[0]
    kind = type(error).__name__
    print(f"cortado: error: {kind}: {detail} (--debug shows where)", file=sys.stderr)
    return CortadoError.exit_code


def wants_traceback(tokens: Sequence[str]) -> bool:
    return any(token in ("-debug", "--debug", "--debug=true") for token in tokens)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script: every failure ends in one message and an exit code."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    try:
        code = dispatch(tokens)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of our output (head, less) is gone; nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except (Exception, KeyboardInterrupt) as error:
        if wants_traceback(tokens):
            traceback.print_exc()
        return report(error)
    finally:
        if argv is None:
            # Python is about to end; a late Ctrl-C shall not print where it was.
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
