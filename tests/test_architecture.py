"""The architecture: imports run one way, every import is declared, and the public names exist."""

import ast
import re
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import lenet_keras

ROOT = Path(__file__).parent.parent
MAIN = ROOT / "lenet_keras" / "__main__.py"  # `python -m lenet_keras`; no module imports it
# A room, a module or a folder of the package, imports only rooms before it. docs/architecture.md explains the order.
ROOMS = (
    "errors",
    "paths",
    "files",
    "runtime",
    "backend",
    "models",
    "theory",
    "data",
    "config",
    "records",
    "runs",
    "checkpoint",
    "distribution",
    "tensorboard",
    "serving",
    "inference",
    "training",
    "export",
    "comparison",
)
DISTRIBUTIONS = {
    "PIL": "pillow",
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio_health_checking",
    "grpc_reflection": "grpcio_reflection",
    "tensorflow_serving": "tensorflow_serving_api",
}


def imports(folder):
    """Yield (file, imported module) for every import in a folder, also inside functions."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, name.name) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                # `from lenet_keras.export import verify` imports a module, `from lenet_keras.errors import X` a name.
                yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)


def modules():
    """The modules of the package by name, without __main__, which is the command line's."""
    files = [path for path in (ROOT / "lenet_keras").rglob("*.py") if path != MAIN]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def module_imports():
    """Yield (importing module, imported module) within the package, except from the top package, which names all."""
    known = modules()
    name_of = {path: name for name, path in known.items()}
    for path, imported in imports("lenet_keras"):
        target = imported if imported in known else imported.rpartition(".")[0]
        if path in name_of and target in known and target != "lenet_keras" and name_of[path] != "lenet_keras":
            yield name_of[path], target


def test_every_module_is_in_a_room():
    assert {name.split(".")[1] for name in modules() if "." in name} == set(ROOMS)


def test_imports_between_rooms_run_one_way():
    rooms = {(source.split(".")[1], target.split(".")[1]) for source, target in module_imports()}
    against = sorted((source, target) for source, target in rooms if ROOMS.index(target) > ROOMS.index(source))
    assert against == []
    assert ("export", "inference") in rooms  # some imports were found


def test_imports_between_modules_run_one_way():
    edges = {}
    for source, target in module_imports():
        edges.setdefault(source, set()).add(target)

    def reach(start):
        found, left = set(), [start]
        while left:
            for target in edges.get(left.pop(), set()) - found:
                found.add(target)
                left.append(target)
        return found

    assert [name for name in edges if name in reach(name)] == []


def test_the_library_neither_prints_nor_knows_the_command_line():
    foreign = ("click", "rich", "lenet_keras_cli")
    found = {(path, name) for path, name in imports("lenet_keras") if name.split(".")[0] in foreign}
    assert found == {(MAIN, "lenet_keras_cli.__main__.main")}
    for path in (ROOT / "lenet_keras").rglob("*.py"):
        if '__name__ == "__main__"' in path.read_text():  # the program of a child process, which answers its parent
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_keras_is_imported_where_its_backend_is_checked():
    importers = set()
    for path in (ROOT / "lenet_keras").rglob("*.py"):
        tree = ast.parse(path.read_text())
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]  # if TYPE_CHECKING:
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
        importers |= {path.name for node in nodes for alias in node.names if alias.name.split(".")[0] == "keras"}
    assert importers == {"backend.py"}


def test_every_import_is_declared():
    declared = {re.split(r"[<>=; \[]", line)[0].lower().replace("-", "_") for line in metadata.requires("lenet-keras")}
    own = {"lenet_keras", "lenet_keras_cli"}
    used = {name.split(".")[0] for folder in ("lenet_keras", "cli") for _, name in imports(folder)}
    used = {DISTRIBUTIONS.get(name, name) for name in used}
    assert used - set(sys.stdlib_module_names) - own - {"__future__"} <= declared


def test_every_package_is_installed():
    text = (ROOT / "pyproject.toml").read_text()
    folders = {path.parent for path in (ROOT / "lenet_keras").rglob("*.py")}
    for folder in folders:
        assert (folder / "__init__.py").is_file(), folder
        assert f'"{".".join(folder.relative_to(ROOT).parts)}"' in text


@pytest.mark.parametrize("name", lenet_keras.__all__)
def test_public_names_exist_and_are_listed(name):
    assert getattr(lenet_keras, name)
    assert name in dir(lenet_keras)


def test_every_error_is_public():
    kinds = [each for each in vars(lenet_keras.errors).values() if isinstance(each, type)]
    errors = {each.__name__ for each in kinds if issubclass(each, lenet_keras.LenetKerasError)}
    assert errors <= set(lenet_keras.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'lenet_keras' has no attribute 'trian'$"):
        lenet_keras.trian  # noqa: B018


def test_importing_the_package_loads_no_tensorflow_and_logs_nothing():
    program = (
        "import logging, sys, lenet_keras\n"
        "logging.getLogger('lenet_keras.data.load').warning('from the library')\n"
        "assert not {'numpy', 'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout + answer.stderr == ""


def test_the_picture_of_the_architecture_is_current():
    program = runpy.run_path(str(ROOT / "docs" / "draw_architecture.py"))
    drawn = program["draw"](program["without_shortcuts"](program["read_imports"]()))
    assert (ROOT / "docs" / "architecture.svg").read_text() == drawn


def test_the_page_of_the_architecture_names_every_room():
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"^\| `(\w+)/?` \|", page, re.MULTILINE)
    assert named == ["cli", *reversed(ROOMS)]
