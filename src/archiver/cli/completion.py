"""``archiver completion``: a script that completes words in a shell."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

SHELLS = {"bash": BashComplete, "fish": FishComplete, "zsh": ZshComplete}
PROGRAM = "archiver"


@click.command("completion")
@click.argument("shell", type=click.Choice([*SHELLS]))
@click.pass_context
def command(context: click.Context, *, shell: str) -> None:
    """Print the script that completes commands and options in SHELL.

    \b
    bash: archiver completion bash > ~/.local/share/bash-completion/completions/archiver
    zsh:  archiver completion zsh > a file _archiver in a folder of $fpath
    fish: archiver completion fish > ~/.config/fish/completions/archiver.fish
    """  # noqa: D301 - click keeps the lines after \b
    group = context.find_root().command
    completion = SHELLS[shell](group, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE")
    source = completion.source_template % completion.source_vars()
    if shell == "zsh":  # a file in $fpath is the function itself
        source = f"#compdef {PROGRAM}\n{source}"
    click.echo(source)
