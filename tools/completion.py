"""Print a script that completes commands, flags and their values: for bash, zsh or fish.

bash: source it in ~/.bashrc. zsh: put it as _cortado into a folder of $fpath. fish: put it as
cortado.fish into ~/.config/fish/completions.

example:
  cortado completion bash > ~/.cortado.bash && echo '. ~/.cortado.bash' >> ~/.bashrc
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import NamedTuple

from .flags import one_of


class Flag(NamedTuple):
    """A flag as it is typed, what it is for, whether a value follows, and which values there are
    (empty: any, a file for instance)."""

    name: str
    help: str
    takes_value: bool
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand with its help line, its flags and the words its first argument may be."""

    name: str
    help: str
    flags: list[Flag]
    words: tuple[str, ...] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", type=one_of(*SHELLS), metavar="SHELL", help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    print(SHELLS[args.shell](commands()), end="")
    return 0


def commands() -> list[Command]:
    """Every subcommand, as its own parser describes it."""
    from .cli import build_parser, help_line, subcommands

    found = []
    for name, module in subcommands().items():
        parser = build_parser(name, module)
        found.append(Command(name, help_line(module), _flags(parser), _words(parser)))
    return found


def _words(parser: argparse.ArgumentParser) -> tuple[str, ...]:
    first = next((action for action in parser._actions if not action.option_strings), None)
    return _choices(first) if first else ()


def _choices(action: argparse.Action) -> tuple[str, ...]:
    return tuple(getattr(action.type, "choices", ()))


def _flags(parser: argparse.ArgumentParser) -> list[Flag]:
    found = []
    for action in parser._actions:
        for option in action.option_strings:
            if option.startswith("--"):
                takes_value = action.nargs is None
                found.append(Flag(option, action.help or "", takes_value, _choices(action)))
    return found


def bash(found: list[Command]) -> str:
    """A function for bash's ``complete``; the words stand in case branches."""
    branches = "".join(
        f'    {each.name}) flags="{" ".join(flag.name for flag in each.flags)}" ;;\n'
        for each in found
    )
    # What may follow a word: a command's own name, or one of its flags.
    values = "".join(
        f'    {each.name}:{before}) values="{" ".join(words)}" ;;\n'
        for each in found
        for before, words in [
            (each.name, each.words),
            *((flag.name, flag.values) for flag in each.flags),
        ]
        if words
    )
    names = " ".join(each.name for each in found)
    return f"""\
_cortado() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command="" flags="" values="" each
  for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case " {names} " in *" $each "*) command="$each"; break ;; esac
  done
  if [[ -z $command ]]; then
    COMPREPLY=($(compgen -W "{names} --help --version" -- "$word"))
    return
  fi
  [[ $before == "=" ]] && before="${{COMP_WORDS[COMP_CWORD-2]}}"
  [[ $word == "=" ]] && {{ before="${{COMP_WORDS[COMP_CWORD-1]}}"; word=""; }}
  case "$command:$before" in
{values}  esac
  case "$command" in
{branches}  esac
  if [[ -n $values && $word != -* ]]; then
    COMPREPLY=($(compgen -W "$values" -- "$word"))
  elif [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _cortado cortado
"""


def zsh(found: list[Command]) -> str:
    """A completion function that lets ``_arguments`` do the work."""
    names = "\n".join(f"    {_quoted(f'{each.name}:{each.help}')}" for each in found)
    branches = "\n".join(
        f"    {each.name}) _arguments {' '.join(map(_zsh_flag, each.flags))} "
        f"{_zsh_words(each.words)}'*:file:_files' ;;"
        for each in found
    )
    return f"""\
#compdef cortado
_cortado() {{
  local -a commands
  commands=(
{names}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{branches}
  esac
}}
compdef _cortado cortado
"""


def _zsh_flag(flag: Flag) -> str:
    # Brackets and colons part what belongs to a flag.
    help = flag.help.replace("[", "(").replace("]", ")").replace(":", " -")
    if not flag.takes_value:
        return _quoted(f"{flag.name}[{help}]")
    values = f"({' '.join(flag.values)})" if flag.values else "_files"
    return _quoted(f"{flag.name}=[{help}]:value:{values}")


def _zsh_words(words: tuple[str, ...]) -> str:
    return f"'1:word:({' '.join(words)})' " if words else ""


def fish(found: list[Command]) -> str:
    """One ``complete`` line for each command and flag."""
    lines = ["complete -c cortado -n __fish_use_subcommand -f"]
    for each in found:
        lines.append(
            f"complete -c cortado -n __fish_use_subcommand -a {each.name} -d {_quoted(each.help)}"
        )
        if each.words:
            words = " ".join(each.words)
            lines.append(
                f"complete -c cortado -n '__fish_seen_subcommand_from {each.name}; "
                f"and not __fish_seen_subcommand_from {words}' -a {_quoted(words)}"
            )
        for flag in each.flags:
            line = (
                f"complete -c cortado -n '__fish_seen_subcommand_from {each.name}' "
                f"-l {flag.name[2:]} -d {_quoted(flag.help)}"
            )
            if flag.takes_value:
                line += f" -x -a {_quoted(' '.join(flag.values))}" if flag.values else " -r"
            lines.append(line)
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """``text`` as one word of any of the shells."""
    return "'" + text.replace("'", "’") + "'"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
