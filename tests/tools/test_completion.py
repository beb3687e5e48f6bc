"""Shell completion: the scripts are made from the parsers, and bash's is run."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from cortado.tools import cli, completion


@pytest.fixture(scope="module")
def found():
    return completion.commands()


def complete(script: str, *words: str) -> list[str]:
    """What bash offers for the last of ``words``."""
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _cortado; "
    done = subprocess.run(
        ["bash", "-c", script + ask + 'printf "%s\\n" "${COMPREPLY[@]}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_bash_completes_commands_flags_values_and_files(found, tmp_path, monkeypatch):
    script = completion.bash(found)
    assert set(complete(script, "cortado", "tra")) == {"train"}
    assert "device_query" in complete(script, "cortado", "")
    assert complete(script, "cortado", "train", "--solv") == ["--solver"]
    assert complete(script, "cortado", "train", "--sigint_effect", "s") == ["stop", "snapshot"]
    assert complete(script, "cortado", "train", "--sigint_effect", "=", "n") == ["none"]
    assert complete(script, "cortado", "zoo", "l") == ["list"]
    assert complete(script, "cortado", "show", "wo") == ["worst"]
    assert complete(script, "cortado", "data", "") == ["info", "check", "export"]
    assert complete(script, "cortado", "show", "--gp") == ["--gpu"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_solver.prototxt").touch()
    assert complete(script, "cortado", "train", "--solver", "my") == ["my_solver.prototxt"]


@pytest.mark.parametrize("shell", sorted(completion.SHELLS))
def test_every_command_and_flag_is_in_every_script(shell, found, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in found:
        assert command.name in script
        for flag in command.flags:
            assert flag.name.lstrip("-") in script
        assert " ".join(command.words) in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_an_unknown_shell(capsys):
    assert cli.main(["completion", "csh"]) == 2
    assert "must be bash or zsh or fish" in capsys.readouterr().err
