"""If these fail, imports no longer run one way: a room cannot be read, or used, without those above it."""

import ast
import graphlib
import pathlib

PACKAGE = pathlib.Path(__file__).parents[1] / "diffcurr"
# From the top to the bottom; a room may import those of its own line and of the lines below.
TIERS = (
    ("main",),
    ("jobs",),
    ("run",),
    ("experiment",),
    ("tasks",),
    ("training", "sampling", "difficulty", "planning", "reporting"),
    ("data", "metrics", "codecs"),
    ("processes", "networks", "conditioning", "pretrained", "curriculum"),
    (
        "atomic_file",
        "batch",
        "config",
        "errors",
        "layout",
        "lazy",
        "parts",
        "ranges",
        "stacked",
        "tensorflow_cpu",
        "weights",
    ),
)
LEVEL = {room: level for level, tier in enumerate(TIERS) for room in tier}


def names_imported(file: pathlib.Path) -> set[str]:
    """The dotted name of everything that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports() -> set[tuple[str, str]]:
    """(room, room that it imports); a room is a folder or a file directly under diffcurr/."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in names_imported(file):
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
    """Beside the declared ranges of its settings, one file without others."""
    assert {other for room, other in imports() if room == "curriculum"} == {"ranges"}


def test_what_every_room_may_import_needs_little() -> None:
    """Of the lowest files only the configs and the parts know others."""
    bottom = set(TIERS[-1])
    allowed = {(room, other) for room in ("config", "parts") for other in ("errors", "ranges")} | {("config", "parts")}
    assert {(room, other) for room, other in imports() if {room, other} <= bottom} == allowed


def test_no_job_imports_another() -> None:
    """Nor reaches one through the package, which loads its modules when they are named."""
    files = sorted((PACKAGE / "jobs").glob("*.py"))
    names = {file.stem for file in files} - {"__init__"}
    assert len(names) > 5
    for file in files:
        imported = {name for name in names_imported(file) if name.startswith("diffcurr.jobs.")}
        assert not imported, f"{file.name} imports {imported}"
        reached = [
            node.attr
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "jobs"
        ]
        assert not names & set(reached), f"{file.name} uses {reached} of the other jobs"
