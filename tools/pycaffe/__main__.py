"""Run a script written for Caffe's Python interface: ``python -m cortado.tools.pycaffe script.py``.

``-m module`` runs a module instead (a test suite: ``-m pytest tests``). In it ``import caffe``, and
everything that scripts import from it, gives Cortado's.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from .modules import install

USAGE = "usage: python -m cortado.tools.pycaffe SCRIPT.py [ARGS...] | -m MODULE [ARGS...]"


def main(arguments: list[str]) -> int:
    """Run what ``arguments`` name, with the rest of them as its own; 2 if they name nothing."""
    if not arguments or arguments == ["-m"]:
        print(USAGE, file=sys.stderr)
        return 2
    if arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    install()
    if arguments[0] == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return 0
    script = Path(arguments[0])
    if not script.is_file():
        print(f"{script}: no such file\n{USAGE}", file=sys.stderr)
        return 2
    sys.path.insert(0, str(script.resolve().parent))
    sys.argv = arguments
    runpy.run_path(str(script), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
