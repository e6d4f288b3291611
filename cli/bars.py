"""Live bars at the bottom of a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.table import Column

from .console import console

__all__ = ["TaskID", "live_bars"]


@contextlib.contextmanager
def live_bars(*fields: str | ProgressColumn) -> Iterator[Progress]:
    """Yield bars at the bottom of the terminal, each with a description and `fields`; at the end they are removed.

    In a narrow terminal the bars shrink, and no text does.

    Args:
        fields: columns after the bar; a name stands for the text of a task's field.
    """

    def text(template: str) -> TextColumn:
        return TextColumn(template, markup=False, table_column=Column(no_wrap=True))

    after = [text(f"{{task.fields[{field}]}}") if isinstance(field, str) else field for field in fields]
    columns = (text("{task.description}"), BarColumn(bar_width=None), *after)
    with Progress(*columns, console=console(), transient=True, redirect_stdout=False) as bars:
        yield bars
