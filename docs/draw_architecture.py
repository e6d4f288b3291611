"""Draw docs/architecture.svg: the rooms of the package, and which imports which.

    python docs/draw_architecture.py

A room is a module or a folder of lenet_keras/. It is placed as high as its importers allow, so that every arrow points
down. An arrow is left out where a longer path leads to the same room, and where it would lead to a room that imports
nothing: such rooms are the foundation, at the bottom, which any room may import.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lenet_keras"
COMMAND_LINE = "cli"
BOX, GAP, ROW, MARGIN = (150, 44), 34, 96, 24  # pixels


def imported_rooms(file: Path) -> Iterator[str]:
    """Yield the rooms that a file imports, including inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith("lenet_keras"):
            parts = (node.module or "").split(".")
            yield from [parts[1]] if len(parts) > 1 else (alias.name for alias in node.names)


def read_imports() -> dict[str, set[str]]:
    """Return the rooms that each room imports; the command line counts as one."""
    names = sorted(path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())
    rooms = {name: set[str]() for name in names if not name.startswith("__")}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = Path(file.relative_to(PACKAGE).parts[0]).stem
        if name in rooms:  # the top package imports everything, lazily
            rooms[name] |= {each for each in imported_rooms(file) if each in rooms and each != name}
    found = {room for file in (ROOT / "cli").rglob("*.py") for room in imported_rooms(file)}
    return {**rooms, COMMAND_LINE: found & rooms.keys()}


def without_shortcuts(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the imports from which all others follow (the transitive reduction)."""

    def reach(room: str) -> set[str]:
        return imports[room].union(*(reach(each) for each in imports[room]))

    return {
        room: {each for each in direct if not any(each in reach(other) for other in direct)}
        for room, direct in imports.items()
    }


def arrange(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return the rooms in rows from the top down, each row ordered by what imports it."""
    foundation = sorted(room for room in imports if not imports[room])
    importers = {room: {each for each in imports if room in imports[each]} for room in imports}

    def depth(room: str) -> int:
        return 1 + max(map(depth, importers[room]), default=-1)

    depths = {room: depth(room) for room in imports if room not in foundation}
    rows = [sorted(room for room in depths if depths[room] == level) for level in range(max(depths.values()) + 1)]
    rows.append(foundation)
    place = dict.fromkeys(imports, 0.0)
    for row in rows:
        row.sort(key=lambda room: (sum(place[each] for each in importers[room]) / max(1, len(importers[room])), room))
        for i, room in enumerate(row):
            place[room] = i - (len(row) - 1) / 2
    return rows


def draw(imports: dict[str, set[str]]) -> str:
    """Return the diagram as SVG."""
    rows = arrange(imports)
    width = max(len(row) for row in rows) * (BOX[0] + GAP) - GAP + 2 * MARGIN
    height = (len(rows) - 1) * ROW + BOX[1] + 2 * MARGIN
    corner = {
        room: (width / 2 + (i - len(row) / 2) * (BOX[0] + GAP) + GAP / 2, MARGIN + level * ROW)
        for level, row in enumerate(rows)
        for i, room in enumerate(row)
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="15">',
        "<title>The rooms of lenet_keras and their imports</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#667"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for room in sorted(imports):
        for target in sorted(imports[room] - set(rows[-1])):
            (x0, y0), (x1, y1) = corner[room], corner[target]
            start, end = (x0 + BOX[0] / 2, y0 + BOX[1]), (x1 + BOX[0] / 2, y1)
            bend = (end[1] - start[1]) / 2
            lines.append(
                f'<path d="M{start[0]:g} {start[1]:g}C{start[0]:g} {start[1] + bend:g} {end[0]:g} {end[1] - bend:g} '
                f'{end[0]:g} {end[1]:g}" fill="none" stroke="#667" stroke-width="1.4" marker-end="url(#tip)"/>'
            )
    for room, (x, y) in corner.items():
        fill = "#fde9c9" if room == COMMAND_LINE else "#e6e6e6" if room in rows[-1] else "#dbe8fb"
        lines.append(
            f'<rect x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="{fill}" stroke="#446"/>'
            f'<text x="{x + BOX[0] / 2:g}" y="{y + 27:g}" text-anchor="middle" fill="#112">{escape(room)}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    (ROOT / "docs" / "architecture.svg").write_text(draw(without_shortcuts(read_imports())), encoding="utf-8")
