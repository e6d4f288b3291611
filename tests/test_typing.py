"""What a type checker sees of the installed package, from a folder of its own."""

import os
import subprocess
import sys

PROGRAM = """
from pathlib import Path

from lenet_keras import TrainConfig, TrainResult, train

TrainConfig(reg="dropout", epochs=3)
TrainConfig(reg=["dropout", "weight_decay"], pooling="average")
result: TrainResult = train(TrainConfig(), "runs/a", data_dir=Path("sets"), verbose=1)
losses: list[float] = result.history["loss"]
TrainConfig(reg="droput")
TrainConfig(reg=["droput"])
TrainConfig(dataset="fashon_mnist")
TrainConfig(pooling="avg")
train(TrainConfig(), "runs/a", verbose=3)
"""
# Only this package and the program are looked at: its dependencies would take a minute.
SETTINGS = """
[mypy]
strict = true
follow_imports = skip
[mypy-lenet_keras.*]
follow_imports = silent
"""


def test_mypy_finds_the_package_and_what_is_wrong(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    answer = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", sys.executable, "program.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": "", "MYPYPATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    first_wrong = PROGRAM.splitlines().index('TrainConfig(reg="droput")') + 1
    wrong = [int(line.split(":")[1]) for line in answer.stdout.splitlines() if " error: " in line]
    assert wrong == list(range(first_wrong, first_wrong + 5)), answer.stdout
