"""The dispatcher: subcommands, flag spellings, exit codes, and how quickly help answers."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from cortado.proto.errors import ConfigError, DataError, NumericError, ResourceError, SnapshotError
from cortado.tools import cli
from cortado.tools.flags import Parser, at_least, canonical, comma_list, one_of, switch

COMMANDS = cli.subcommands()


def make_parser() -> Parser:
    parser = Parser("cortado thing", "A thing.")
    parser.add_argument("--solver", default="")
    parser.add_argument("--sigint_effect", type=one_of("stop", "none"), default="stop")
    parser.add_argument("--level", type=int, default=0)
    parser.add_argument("--iterations", type=at_least(1), default=50)
    switch(parser, "encoded", "store compressed bytes")
    return parser


@pytest.mark.parametrize(
    "tokens",
    [["-solver", "f"], ["--solver", "f"], ["-solver=f"], ["--solver=f"]],
    ids=lambda tokens: " ".join(tokens),
)
def test_every_gflags_spelling_of_a_value(tokens):
    parser = make_parser()
    assert parser.parse_args(canonical(tokens, parser)).solver == "f"


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("--encoded", True),
        ("-encoded", True),
        ("--encoded=true", True),
        ("--encoded=1", True),
        ("--noencoded", False),
        ("-noencoded", False),
        ("--encoded=false", False),
    ],
)
def test_every_gflags_spelling_of_a_boolean(token, value):
    parser = make_parser()
    assert parser.parse_args(canonical([token], parser)).encoded is value


def test_dashes_stand_for_underscores_and_values_may_look_like_flags():
    parser = make_parser()
    tokens = canonical(["--sigint-effect", "none", "-level", "-2", "--solver", "-f"], parser)
    args = parser.parse_args(tokens)
    assert (args.sigint_effect, args.level, args.solver) == ("none", -2, "-f")


def test_flag_file(tmp_path):
    file = tmp_path / "flags"
    file.write_text("# comment\n\n--solver='a b'\n-noencoded\n")
    parser = make_parser()
    args = parser.parse_args(canonical([f"--flagfile={file}"], parser))
    assert (args.solver, args.encoded) == ("a b", False)
    with pytest.raises(ConfigError, match="No such file"):
        canonical(["--flagfile", str(tmp_path / "missing")], parser)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--solvr=f"], "unknown flag '--solvr'; did you mean '--solver'"),
        (["--solver"], "flag '--solver' needs a value"),
        (["--encoded=maybe"], "must be true or false, got 'maybe'"),
        (["--sigint_effect=halt"], "must be stop or none, got 'halt'"),
        (["--iterations=0"], "must be a whole number from 1, got '0'"),
        (["stray"], "unrecognized arguments: stray"),
    ],
)
def test_wrong_flags_are_named(tokens, message):
    parser = make_parser()
    with pytest.raises(ConfigError, match="cortado thing") as caught:
        parser.parse_args(canonical(tokens, parser))
    assert message in str(caught.value)


def test_comma_list():
    assert comma_list(" a, b,,c ") == ["a", "b", "c"]
    assert comma_list("") == []


def run(*tokens: str, capsys) -> tuple[int, str, str]:
    code = cli.main(tokens)
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize("tokens", [(), ("--help",), ("-helpshort",), ("help",)])
def test_usage_names_every_command(tokens, capsys):
    code, out, _ = run(*tokens, capsys=capsys)
    assert code == 0
    for name in COMMANDS:
        assert f"  {name} " in out


def test_version(capsys):
    from cortado import __version__

    assert run("--version", capsys=capsys) == (0, f"cortado version {__version__}\n", "")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("trian",), "unknown command 'trian'; did you mean 'train'?"),
        (("train", "--solvre", "f"), "unknown flag '--solvre'; did you mean '--solver'?"),
        (("-gpu", "0"), "unknown command '0'"),
        (("--gpu=0",), "no command given with --gpu=0"),
        (("train",), "--solver FILE is needed"),
        (("train", "--solver=s", "--snapshot=a", "--weights=b"), "not both"),
        (("test", "--model=m"), "--weights FILE is needed"),
        (("time",), "--model FILE is needed"),
        (("plot_training_log", "8", "x.png", "x.log"), "CHART must be a number from 0 to 7"),
    ],
)
def test_wrong_command_lines_end_with_code_2_and_no_traceback(tokens, message, capsys):
    code, _, err = run(*tokens, capsys=capsys)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_the_command_may_stand_anywhere(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(COMMANDS["train"], "run", lambda args: seen.append(args) or 0)
    for tokens in (
        ["train", "-gpu", "1", "--solver=s"],
        ["-gpu", "1", "train", "--solver=s"],
        ["--solver=s", "-gpu", "1", "train"],
        ["--debug", "train", "--solver=s", "--gpu=1"],
        ["--solver", "s", "train", "--gpu", "1"],
    ):
        assert cli.main(tokens) == 0
    assert {(args.gpu, args.solver) for args in seen} == {("1", "s")}


def test_a_value_that_is_called_like_a_command(monkeypatch):
    seen = []
    monkeypatch.setattr(COMMANDS["test"], "run", lambda args: seen.append(args.model) or 0)
    assert cli.main(["--model", "test", "test", "--weights=w"]) == 0
    assert seen == ["test"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong"), 2),
        (DataError("broken"), 3),
        (SnapshotError("torn"), 4),
        (ResourceError("gone"), 5),
        (NumericError("nan"), 7),
        (MemoryError(), 5),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("division by zero"), 1),
    ],
)
def test_exit_codes(error, code, monkeypatch, capsys):
    def fail(args):
        raise error

    monkeypatch.setattr(COMMANDS["device_query"], "run", fail)
    found, _, err = run("device_query", capsys=capsys)
    assert found == code
    assert err.count("\n") == 1
    assert "Traceback" not in err
    found, _, err = run("device_query", "--debug", capsys=capsys)
    assert found == code
    assert "Traceback" in err


def test_an_unexpected_error_hints_at_debug(monkeypatch, capsys):
    def fail(args):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(COMMANDS["device_query"], "run", fail)
    _, _, err = run("device_query", capsys=capsys)
    assert err == "cortado: error: ZeroDivisionError: division by zero (--debug shows where)\n"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name, capsys):
    code, out, _ = run(name, "--help", capsys=capsys)
    assert code == 0
    assert f"usage: cortado {name}" in out
    assert f"cortado {name} " in COMMANDS[name].__doc__, "its help shows an example"
    assert isinstance(COMMANDS[name], types.ModuleType)


def test_help_imports_nothing_heavy():
    """What --help imports decides how long it takes; the time itself is in docs/benchmarks.md."""
    script = (
        "import sys; from cortado.tools import cli; cli.main(['--help']);"
        "heavy = {'torch', 'numpy', 'cv2', 'lmdb', 'matplotlib', 'rich', 'google.protobuf'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_closed_pipe_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "cortado.tools.cli", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
