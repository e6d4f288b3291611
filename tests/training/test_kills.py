"""Processes that are really killed, at random instants: their runs resume to the result of an uninterrupted one."""

import json
import subprocess
import sys
from pathlib import Path

KILLS = 1  # of each variant, times --repeats
VARIANTS = ("none", "dropout", "batch_norm", "weight_decay")


def test_a_run_killed_repeatedly_is_bit_identical_to_an_uninterrupted_one(tmp_path, chance, repeats):
    program = Path(__file__).with_name("kill_and_resume.py")
    kills, seed = KILLS * repeats, chance.randrange(1000)
    finished = subprocess.run(
        [sys.executable, program, tmp_path, *VARIANTS, "--kills", str(kills), "--seed", str(seed)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, f"seed {seed}: {finished.stderr}"
    results = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [result["reg"] for result in results] == list(VARIANTS)
    for result in results:
        assert result["kills"] == kills
        assert result["runs"] >= 1
