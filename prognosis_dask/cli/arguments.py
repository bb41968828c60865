"""What several commands share: how a command is added, the options that several have, and their completion.

Bash's script of ``prognosis completion`` serves zsh too, by its ``bashcompinit``. It is made from the parser, so the
Tab key needs no Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from prognosis_dask.objects.address import is_address

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

#: Exit status for a mistake that the user can correct.
EXIT_ERROR = 2


def add_command(commands: Commands, name: str, what: str) -> argparse.ArgumentParser:
    """Add a command; ``what`` is its line in the list of commands and heads its own help."""
    return commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")


def place(text: str) -> Path | str:
    """A path, or an address of objects as it is: ``Path`` would take one of its slashes."""
    return text if "://" in text else Path(text)


def local_place(text: str) -> Path:
    """A path on this machine; an address of objects is refused."""
    if is_address(text):
        raise argparse.ArgumentTypeError(f"{text} lies in a bucket; expected a folder or file on this machine")
    return Path(text)


def out_argument(parser: argparse.ArgumentParser, what: str, **more: Any) -> None:
    """Add ``-o``."""
    parser.add_argument("-o", "--out", metavar="DIR", help=what, **{"type": local_place, **more})


def repeatable(parser: argparse.ArgumentParser, name: str, metavar: str, what: str, **more: Any) -> None:
    """Add an option that may be given several times; its values are a list."""
    parser.add_argument(
        name, metavar=metavar, help=f"{what}; repeatable", **{"action": "append", "default": [], **more}
    )


def cluster_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--cluster`` and ``--tls``."""
    parser.add_argument(
        "--cluster",
        default="local",
        metavar="CLUSTER",
        help="local, cuda, tcp://HOST:PORT, or a cluster file (see cluster/; default: local)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="encrypt connections, with the cluster file's certificates or temporary ones"
    )


SHELLS = ("bash", "zsh", "fish")

_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"

_BASH = """_prognosis() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}}
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
        return
    fi
    case "$command $before" in
{choices}    esac
    case "$command" in
{options}    esac
}}
complete -o default -F _prognosis prognosis
"""


def add_completion(commands: Commands, parser: argparse.ArgumentParser) -> None:
    """Add ``completion`` to the commands of ``parser``."""
    complete = add_command(commands, "completion", "print a shell script that completes commands and options")
    complete.add_argument("shell", choices=SHELLS, help='bash and zsh: eval "$(prognosis completion bash)"')
    complete.set_defaults(command=lambda arguments: print(completion(arguments.shell, parser), end=""))


def completion(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for ``shell``, one of :data:`SHELLS`."""
    commands = dict(_commands(parser))
    if shell == "fish":
        return "\n".join(_fish_lines(commands)) + "\n"
    choices = "".join(
        f'        "{name} {option}") COMPREPLY=($(compgen -W "{" ".join(values)}" -- "$word")); return ;;\n'
        for name, command in commands.items()
        for option, values in _choices(command)
    )
    options = "".join(
        f'        {name}) COMPREPLY=($(compgen -W "{" ".join(_options(command))}" -- "${{word:-/}}")) ;;\n'
        for name, command in commands.items()
    )
    script = _BASH.format(commands=" ".join(commands), choices=choices, options=options)
    return _ZSH + script if shell == "zsh" else script


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _options(command: argparse.ArgumentParser) -> list[str]:
    own = [option for action in command._actions for option in action.option_strings if option.startswith("--")]
    return list(dict.fromkeys([*own, *(option for _, action in _commands(command) for option in _options(action))]))


def _choices(command: argparse.ArgumentParser) -> Iterator[tuple[str, list[str]]]:
    """Options that take one of a few words; a command's own actions stand at its name."""
    for action in command._actions:
        if action.choices is not None:
            for name in action.option_strings or [command.prog.split()[-1]]:
                yield name, list(map(str, action.choices))


def _fish_lines(commands: dict[str, argparse.ArgumentParser]) -> Iterator[str]:
    yield f"complete -c prognosis -n __fish_use_subcommand -f -a '{' '.join(commands)}'"
    for name, command in commands.items():
        here = f"complete -c prognosis -n '__fish_seen_subcommand_from {name}'"
        choices = dict(_choices(command))
        for option in _options(command):
            values = f" -x -a '{' '.join(choices[option])}'" if option in choices else ""
            yield f"{here} -l {option.removeprefix('--')}{values}"
        if name in choices:
            yield f"{here} -f -a '{' '.join(choices[name])}'"
