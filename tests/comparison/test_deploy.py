"""The files in deploy/ for comparisons on several machines, run as far as one machine can."""

import os
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SBATCH = DEPLOY / "slurm" / "compare.sbatch"
CLAIM, JOB = yaml.safe_load_all((DEPLOY / "kubernetes" / "compare.yaml").read_text())
CONTAINER = JOB["spec"]["template"]["spec"]["containers"][0]


@pytest.fixture
def environment(tmp_path):
    """An environment activated by `.venv/bin/activate`, in which `lenet-keras` prints its arguments."""
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    for name, text in (("lenet-keras", '#!/bin/sh\necho "$*"\n'), ("srun", '#!/bin/sh\nexec "$@"\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return {**kept, "PATH": f"{programs}:/usr/bin:/bin"}


def test_a_job_of_the_slurm_array_takes_its_part(tmp_path, environment):
    variables = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}
    done = subprocess.run(
        [SBATCH, "--seeds", "3"],
        cwd=tmp_path,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "compare --task 2/4 --seeds 3\n"


def test_the_slurm_array_counts_from_one():
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", SBATCH.read_text(), re.MULTILINE))

    assert re.fullmatch(r"1-\d+", options["array"])
    assert options["signal"] == "TERM@60"


def test_a_pod_takes_the_part_of_its_index(environment):
    variables = {each["name"]: each["value"] for each in CONTAINER["env"]}
    last = JOB["spec"]["completions"] - 1
    done = subprocess.run(
        [*CONTAINER["command"], *CONTAINER["args"]],
        env={**environment, **variables, "JOB_COMPLETION_INDEX": str(last)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"compare --task {last + 1}/{last + 1} --seeds 10 --jobs 2\n"


@pytest.mark.parametrize("version", ["1.27", "1.34"])
@pytest.mark.parametrize("document", [CLAIM, JOB], ids=["PersistentVolumeClaim", "Job"])
def test_the_kubernetes_manifest_follows_the_published_schema(document, version):
    kubernetes_validate.validate(document, version, strict=True)
