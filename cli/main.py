"""The command `lenet-keras`: the group that its subcommands hang from, and what an error looks like."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import click

from lenet_keras.errors import InvalidArgument, LenetKerasError

from .interruption import interruption

COMMANDS = ("train", "evaluate", "predict", "export", "serve", "tensorboard", "models", "data")


class _Commands(click.Group):
    """Imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{name}", __package__).command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="surrogateescape")  # names of files come out as the bytes that they are
        try:
            with interruption.handled():
                return super().invoke(ctx)
        except InvalidArgument as error:
            raise click.UsageError(_one_line(str(error))) from error
        except LenetKerasError as error:
            raise click.ClickException(_one_line(str(error))) from error
        except BrokenPipeError:  # the reader of our output has left; Click ends the process quietly
            raise
        except OSError as error:
            raise click.ClickException(_one_line(_shown(error))) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            sys.exit(interruption.exit_code)


@click.group(cls=_Commands, context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lenet-keras", message="%(prog)s %(version)s")
def main() -> None:
    """Train LeNet-5 variants, compare them honestly, and export them for TensorFlow Serving.

    Start with: lenet-keras train --reg weight_decay
    """


def _one_line(message: str) -> str:
    # A file's name may hold line breaks, bytes that are no text, and sequences that control the terminal.
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in message)


def _shown(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
