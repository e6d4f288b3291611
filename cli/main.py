"""The command `lenet-keras`: the group that its subcommands belong to, and how errors are shown."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator
from typing import Any

import click

from lenet_keras import errors, runtime
from lenet_keras.data.catalogue import SAMPLE_DATASET
from lenet_keras.errors import InvalidArgument, LenetKerasError, did_you_mean

from .console import notices_on_stderr, printable
from .interruption import interruption

# Described here, so that `lenet-keras --help` imports none of them.
COMMANDS = {
    "train": "Train a LeNet-5 variant and export it as a SavedModel.",
    "compare": "Train variants with several seeds, and compare them.",
    "runs": "List runs, and the mean of each variant over its seeds.",
    "evaluate": "Measure a run's model or a SavedModel on every test image.",
    "predict": "Name the class of each image, with its probability.",
    "export": "Export the model of a finished run.",
    "serve": "Serve exported models over REST and gRPC.",
    "tensorboard": "Show runs in TensorBoard.",
    "models": "List the variants, or the layers of one.",
    "data": "List the datasets, or fetch and prepare one.",
}

# Which option or command helps. The library, which does not know them, says only what is wrong.
_ADVICE: dict[type[errors.LenetKerasError], str] = {
    errors.RunExists: "Continue it with --resume, replace it with --overwrite, or choose another folder with "
    "--run-dir.",
    errors.NotARunFolder: "Choose another folder with --run-dir.",
    errors.DatasetRequired: "Name it with --dataset.",
    errors.RunNotFound: "Start one with lenet-keras train, without --resume.",
    errors.SettingsDiffer: "Resume it with its own settings, or choose another folder with --run-dir.",
    errors.RunInUse: "Wait until that process has ended, or choose another folder with --run-dir.",
    errors.RunUnfinished: "Continue it with lenet-keras train --resume.",
    errors.RunDamaged: "Train the run again with --overwrite.",
    errors.Diverged: "Restart with a smaller --learning-rate.",
    errors.InvalidCluster: "Correct or unset TF_CONFIG, or train in this process alone with --strategy one_device.",
    errors.ClusterTimeout: "Workers that start late need a longer --cluster-timeout.",
    errors.WorkerLost: "Start all workers again with --resume.",
}
_ADVICE_OF_COMPARE: dict[type[errors.LenetKerasError], str] = {
    **_ADVICE,
    errors.NotARunFolder: "Choose another folder with --out.",
    errors.RunNotFound: "",
    errors.SettingsDiffer: "Choose another folder with --out.",
    errors.RunInUse: "Wait until that process has ended, or choose another folder with --out.",
    errors.RunDamaged: "To train it again, remove its folder.",
}


class _Commands(click.Group):
    """Imports a subcommand when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{name}", __package__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(error.message + did_you_mean(args[0], COMMANDS), ctx) from error

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with _endings_shown():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="surrogateescape")  # file names are printed as the bytes they are
        runtime.settle_keras()
        with _endings_shown(), notices_on_stderr():
            return super().invoke(ctx)


@click.group(cls=_Commands, context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lenet-keras", message="%(prog)s %(version)s")
def main() -> None:
    """Train LeNet-5 variants, compare them honestly, and export them for TensorFlow Serving.

    Start with: lenet-keras train --reg weight_decay
    """


@contextlib.contextmanager
def _endings_shown() -> Iterator[None]:
    """Show an error or an interruption of the body in one line, with the exit code that belongs to it."""
    try:
        yield
    except InvalidArgument as error:
        raise click.UsageError(_explained(error)) from error
    except LenetKerasError as error:
        raise click.ClickException(_explained(error)) from error
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{error.filename}: {reason}" if error.filename else reason
        raise click.ClickException(printable(message)) from error
    except KeyboardInterrupt:
        interruption.arrive()
        click.echo("Interrupted.", err=True)
        sys.exit(interruption.exit_code)


def _explained(error: LenetKerasError) -> str:
    message, advice = printable(str(error)), _advice_on(error)
    return message + (("\n" if "\n" in message else " ") + advice if advice else "")


def _advice_on(error: errors.LenetKerasError) -> str:
    if isinstance(error, errors.DatasetNotFound):
        return _on_dataset_not_found(error)
    ctx = click.get_current_context(silent=True)
    advice = _ADVICE_OF_COMPARE if ctx and ctx.invoked_subcommand == "compare" else _ADVICE
    return next((advice[kind] for kind in type(error).__mro__ if kind in advice), "")


def _on_dataset_not_found(error: errors.DatasetNotFound) -> str:
    prepare = f"lenet-keras data prepare {error.dataset} --data-dir"
    if error.dataset == SAMPLE_DATASET:
        return "Leave out --data-dir: the sample ships with lenet-keras."
    if error.tried:
        return (
            f"On a machine with internet access, run `{prepare} FOLDER`, copy FOLDER here, and add --data-dir FOLDER."
        )
    return f"Check --data-dir, or fetch the dataset with `{prepare} {error.data_dir}`."
