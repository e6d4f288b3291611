"""Tables on stdout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

UNBOUNDED = 10_000  # columns: what reads a pipe or file wants whole lines


def show_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[str] = ()
) -> None:
    """Print a table under `title`, with the columns named in `numbers` aligned right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    console = Console(highlight=False, markup=False, emoji=False)  # names of files may look like either
    if not console.is_terminal:
        console.width = UNBOUNDED
    console.print(title, style="bold")
    console.print(table)


def metric_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for each split that `metrics` (as in metrics.json) holds: name, loss, accuracy in percent."""
    splits = [(name, metrics.get(name)) for name in ("train", "validation", "test")]
    return [[name, f"{split['loss']:.4f}", f"{100 * split['accuracy']:.2f} %"] for name, split in splits if split]


def show_metrics(title: str, metrics: Mapping[str, Any]) -> None:
    """Print loss and accuracy of each split."""
    show_table(title, ["split", "loss", "accuracy"], metric_rows(metrics), numbers=["loss", "accuracy"])
