"""The rooms: the library knows nothing of the command line, and every import is declared."""

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
ALIASES = {
    "PIL": "pillow",
    "google": "protobuf",
    "grpc": "grpcio",
    "tensorflow_serving": "tensorflow_serving_api",
}


def imports(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, name.name.split(".")[0]) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield path, node.module.split(".")[0]


def test_the_library_neither_prints_nor_knows_the_command_line():
    assert not [(path, name) for path, name in imports("lenet_keras") if name in ("click", "rich", "lenet_keras_cli")]
    for path in (ROOT / "lenet_keras").rglob("*.py"):
        if '__name__ == "__main__"' in path.read_text():  # the program of a child process, which answers its parent
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_every_import_is_declared():
    declared = {re.split(r"[<>=; \[]", line)[0].lower().replace("-", "_") for line in metadata.requires("lenet-keras")}
    own = {"lenet_keras", "lenet_keras_cli"}
    used = {ALIASES.get(name, name) for folder in ("lenet_keras", "cli") for _, name in imports(folder)}
    assert used - set(sys.stdlib_module_names) - own - {"__future__"} <= declared


def test_every_package_is_installed():
    text = (ROOT / "pyproject.toml").read_text()
    for init in (ROOT / "lenet_keras").rglob("__init__.py"):
        assert f'"{".".join(init.parent.relative_to(ROOT).parts)}"' in text
