"""Options that several commands share, their kinds of values, and notices."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from lenet_keras.errors import InvalidArgument, did_you_mean
from lenet_keras.models import REGULARISATIONS, parse_reg, reg_name
from lenet_keras.paths import local_path
from lenet_keras.serving.config import DEFAULT_EXPORT_DIR

from .console import silence


class LocalPath(click.Path):
    """A path of this machine: `~` is expanded, which a shell does not do in `--option=~/folder`; a URL is refused."""

    def __init__(self, **kinds: bool) -> None:
        super().__init__(path_type=Path, **kinds)

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path as a `Path`."""
        try:
            path = local_path(value)
        except InvalidArgument as error:
            self.fail(str(error), param, ctx)
        return super().convert(path, param, ctx)


class Choice(click.Choice[str]):
    """One of several names; for one that is mistyped the message names the one that it resembles."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return Click's message with the guess."""
        return super().get_invalid_choice_message(value, ctx) + did_you_mean(value, map(str, self.choices))


class Reg(Choice):
    """A regularisation, or several joined by "+"."""

    def __init__(self) -> None:
        super().__init__(list(REGULARISATIONS))

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name of the combination."""
        return reg_name(parse_reg([super(Reg, self).convert(name, param, ctx) for name in value.split("+")]))


LOCALHOST = "127.0.0.1"
FILE = LocalPath()
FOLDER = LocalPath(file_okay=False)
EXISTING_FOLDER = LocalPath(exists=True, file_okay=False)

data_dir = click.option(
    "--data-dir",
    type=FOLDER,
    help="Folder that holds the dataset: prepared by TFDS, or IDX files.  [default: found or fetched]",
)
export_dir = click.option("--export-dir", type=FOLDER, default=DEFAULT_EXPORT_DIR, help="Folder of exported models.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print only JSON on stdout.")
verbose = click.option("--verbose", is_flag=True, help="Show TensorFlow's own log messages.")


def _silence(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        silence()


quiet = click.option(
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_silence,
    help="Show only results, warnings and errors: no progress and no notices.",
)

_log = logging.getLogger("lenet_keras.cli")


def notice(line: str) -> None:
    """Show a line on stderr, except with --quiet."""
    _log.info("%s", line)


def warn(line: str) -> None:
    """Show a line on stderr, with --quiet as well."""
    _log.warning("%s", line)


def given(name: str) -> bool:
    """Return whether the user has given the option of this parameter."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def reject_given(name: str, why: str) -> None:
    """Raise `click.UsageError` if the user has given the option of this parameter; `why` says when it does nothing."""
    if given(name):
        raise click.UsageError(f"--{name.replace('_', '-')} does nothing {why}.")
