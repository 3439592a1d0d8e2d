"""Draws the rooms of the program from the import contracts: ``python -m tools.rooms`` writes docs/developer/rooms.svg.

The order of the rooms is that of the contract "rooms" in pyproject.toml, their purpose is the first sentence of their
docstring, and what they import is read from the code.
"""

from __future__ import annotations

import ast
import tomllib
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "developer" / "rooms.svg"
ROW_HEIGHT, WIDTH, NAME_WIDTH = 46, 980, 130
GREY = "#5b6b7b"


def contract_rooms() -> list[str]:
    """Return the rooms of the contract, from top to bottom."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = [contract["layers"] for contract in settings["contracts"] if contract["id"] == "rooms"]
    return [layer for layer in layers if (ROOT / layer.replace(".", "/")).is_dir()]


def room_purpose(room: str) -> str:
    """Return the first sentence of the docstring of a room."""
    tree = ast.parse((ROOT / room.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " ").replace("``", "")


def imported_rooms(rooms: list[str]) -> dict[str, list[str]]:
    """Return for each room the rooms that it imports, in their order."""
    graph = grimp.build_graph("muxer", cache_dir=None)
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for module in graph.modules:
        room = ".".join(module.split(".")[:2])
        if room in found:
            found[room] |= {".".join(name.split(".")[:2]) for name in graph.find_modules_directly_imported_by(module)}
    return {room: [other for other in rooms if other in found[room] and other != room] for room in rooms}


def render_picture() -> str:
    """Return the picture: one box a room, top to bottom, with its purpose and the rooms that it imports."""
    rooms = contract_rooms()
    imports = imported_rooms(rooms)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {ROW_HEIGHT * len(rooms)}" '
        'font-family="sans-serif" font-size="13" role="img" aria-label="The rooms of the program, from top to bottom">'
    ]
    for number, room in enumerate(rooms):
        y = number * ROW_HEIGHT
        below = ", ".join(name.removeprefix("muxer.") for name in imports[room]) or "nothing of ours"
        lines += [
            f'<rect x="1" y="{y + 2}" width="{WIDTH - 2}" height="{ROW_HEIGHT - 4}" rx="5" fill="#f4f6f8" stroke="{GREY}"/>',
            f'<text x="12" y="{y + 28}" font-weight="bold">{escape(room.removeprefix("muxer."))}/</text>',
            f'<text x="{NAME_WIDTH}" y="{y + 19}">{escape(room_purpose(room))}</text>',
            f'<text x="{NAME_WIDTH}" y="{y + 36}" fill="{GREY}">imports {escape(below)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(render_picture(), encoding="utf-8")
