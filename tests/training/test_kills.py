"""Processes that are really killed, at random instants: what they leave continues to what would have been."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 6


@pytest.mark.parametrize("reg", ["none", "dropout", "batch_norm", "weight_decay"])
def test_a_run_killed_again_and_again_ends_with_the_bits_of_one_left_alone(tmp_path, reg):
    program = Path(__file__).with_name("kill_and_resume.py")
    seed = random.randrange(1000)  # other instants each time
    finished = subprocess.run(
        [sys.executable, program, tmp_path, reg, str(KILLS), str(seed)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, f"seed {seed}: {finished.stderr}"
    result = json.loads(finished.stdout)
    assert result["kills"] == KILLS
    assert result["runs"] >= 1
