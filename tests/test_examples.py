"""The examples in docstrings run as they stand, and every public function has one."""

import doctest
import importlib
import inspect
import shutil
from pathlib import Path

import pytest

import lenet_keras
from lenet_keras.data.load import load
from lenet_keras.inference.images import encode_png

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "lenet_keras").rglob("*.py")
    if ">>> " in path.read_text()
)
FUNCTIONS = [name for name in lenet_keras.__all__ if inspect.isfunction(getattr(lenet_keras, name))]


@pytest.fixture
def work(tmp_path, monkeypatch, sample_run):
    """A current folder with a finished run and an image, as the examples name them."""
    shutil.copytree(sample_run, tmp_path / "runs" / "fashion_mnist_sample" / "none" / "7")
    (tmp_path / "boot.png").write_bytes(encode_png(load("fashion_mnist_sample").test.images[0]))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(work, module):
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name):
    assert ">>> " in inspect.getdoc(getattr(lenet_keras, name))
