"""`lenet-keras data`."""

from __future__ import annotations

from pathlib import Path

import click

from lenet_keras.data.catalogue import DATASETS

from . import options


@click.group(invoke_without_command=True)
@options.data_dir
@click.pass_context
def command(ctx: click.Context, data_dir: Path | None) -> None:
    """List the datasets and where each would come from, or prepare one."""
    if ctx.invoked_subcommand is not None:
        ctx.obj = data_dir
        return
    from lenet_keras.data.load import availability

    from .tables import show_table

    rows = []
    for name, spec in DATASETS.items():
        sources = availability(name, data_dir)
        usable = [source for source in sources if source.available is not False]
        first = next((source for source in usable if source.available), next(iter(usable), None))
        origin = f"{first.source}: {first.detail}" if first else "nowhere"
        rows.append([name, f"{spec.train_size:,}", f"{spec.test_size:,}", spec.num_classes, origin])
    show_table("Datasets", ["name", "train", "test", "classes", "would come from"], rows, ["train", "test", "classes"])


@command.command()
@click.argument("name", type=options.Choice(list(DATASETS)))
@options.data_dir
@options.quiet
@click.pass_obj
def prepare(earlier: Path | None, name: str, data_dir: Path | None) -> None:
    """Fetch a dataset if needed and check it, so that training starts at once."""
    # --data-dir may stand before the subcommand as well.
    if earlier is not None and data_dir is not None and earlier.absolute() != data_dir.absolute():
        raise click.UsageError(f"--data-dir is given twice, as {earlier} and as {data_dir}.")
    from lenet_keras.data.load import prepare as prepare_dataset

    click.echo(prepare_dataset(name, data_dir or earlier))
