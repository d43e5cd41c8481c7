"""Imports between the rooms run one way, so that a room can be read, and used, without those above it."""

import ast
import graphlib
import pathlib

PACKAGE = pathlib.Path(__file__).parents[1] / "diffcurr"
# From the top to the bottom; a room may import those of its own line and of the lines below.
TIERS = (
    ("main",),
    ("jobs",),
    ("experiment",),
    ("training", "sampling", "difficulty", "planning", "reporting"),
    ("data", "metrics"),
    ("processes", "networks", "pretrained", "curriculum"),
    ("atomic_file", "axes", "config", "errors", "lazy", "tensorflow_cpu"),
)
LEVEL = {room: level for level, tier in enumerate(TIERS) for room in tier}


def imports() -> set[tuple[str, str]]:
    """(room, room that it imports); a room is a folder or a file directly under diffcurr/."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                package, *path = name.split(".")
                if package == "diffcurr" and path[0] != room and room != "__init__":
                    found.add((room, path[0]))
    return found


def test_every_room_has_its_place() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(LEVEL)


def test_no_room_imports_one_above_it() -> None:
    assert not {(room, other) for room, other in imports() if LEVEL[other] < LEVEL[room]}


def test_no_room_imports_one_that_imports_it() -> None:
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for room, other in imports():
        sorter.add(room, other)
    sorter.prepare()  # raises CycleError, naming the rooms in a circle


def test_the_lowest_rooms_know_nothing_of_each_other() -> None:
    lowest = set(TIERS[-2])
    assert not {(room, other) for room, other in imports() if {room, other} <= lowest}


def test_the_curriculum_stands_alone() -> None:
    assert not {other for room, other in imports() if room == "curriculum"}
