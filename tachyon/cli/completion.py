"""`completion`: a script for a shell, made from the parsers, so that it knows what they know."""

from __future__ import annotations

import argparse
from typing import TypeAlias

SHELLS = ("bash", "zsh", "fish")

Commands: TypeAlias = dict[str, tuple[str, list[tuple[str, str]]]]  # name: help, its options with their help


def _options(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    return [(each, action.help or "") for action in parser._actions for each in action.option_strings]


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return the script: commands and options; whatever else stands on the line is a file."""
    commands: Commands = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {each.dest: each.help or "" for each in action._choices_actions}
            commands = {name: (summaries[name], _options(each)) for name, each in action.choices.items()}
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands, _options(parser))


def _words(options: list[tuple[str, str]]) -> str:
    return " ".join(name for name, _ in options)


def _cases(commands: Commands, options: list[tuple[str, str]]) -> str:
    lines = [f'    {name}) choices="{_words(own)}" ;;' for name, (_, own) in commands.items()]
    return "\n".join([*lines, f'    *) choices="{_words(options)}" ;;'])


def _bash(commands: Commands, options: list[tuple[str, str]]) -> str:
    return f"""\
_tachyon() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} choices
  case ${{COMP_WORDS[1]}} in
{_cases(commands, options)}
  esac
  COMPREPLY=()
  if [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$current")
  elif ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W "{" ".join(commands)}" -- "$current")
  elif [[ ${{COMP_WORDS[1]}} == completion ]]; then
    mapfile -t COMPREPLY < <(compgen -W "{" ".join(SHELLS)}" -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}}
complete -o filenames -F _tachyon tachyon
"""


def _zsh(commands: Commands, options: list[tuple[str, str]]) -> str:
    return f"""\
#compdef tachyon
_tachyon() {{
  local given=${{words[2]}} choices  # words is zsh's own
  case $given in
{_cases(commands, options)}
  esac
  if [[ $PREFIX == -* ]]; then
    compadd -- ${{=choices}}
  elif ((CURRENT == 2)); then
    compadd -- {" ".join(commands)}
  elif [[ $given == completion ]]; then
    compadd -- {" ".join(SHELLS)}
  else
    _files
  fi
}}
compdef _tachyon tachyon
"""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _fish(commands: Commands, options: list[tuple[str, str]]) -> str:
    def option(condition: str, name: str, text: str) -> str:
        kind = "-l" if name.startswith("--") else "-s"
        return f"complete -c tachyon -n {condition} {kind} {name.lstrip('-')} -d {_quoted(text)}"

    lines = ["complete -c tachyon -n __fish_use_subcommand -f"]
    lines += [option("__fish_use_subcommand", *each) for each in options]
    for name, (summary, own) in commands.items():
        lines.append(f"complete -c tachyon -n __fish_use_subcommand -f -a {name} -d {_quoted(summary)}")
        lines += [option(_quoted(f"__fish_seen_subcommand_from {name}"), *each) for each in own]
    lines.append(f"complete -c tachyon -n '__fish_seen_subcommand_from completion' -f -a '{' '.join(SHELLS)}'")
    return "\n".join(lines) + "\n"
