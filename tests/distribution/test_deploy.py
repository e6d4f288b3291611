"""The files in deploy/ for training on several machines, run as far as one machine can."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from lenet_keras.distribution.cluster import from_tf_config
from lenet_keras.runs import RunFolder

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SBATCH = DEPLOY / "slurm" / "train.sbatch"
SERVICE, CLAIM, JOB = yaml.safe_load_all((DEPLOY / "kubernetes" / "train.yaml").read_text())
CONTAINER = JOB["spec"]["template"]["spec"]["containers"][0]

# `srun` as a script in one job step sees it: a process per task, with the variables that Slurm 22.05 sets.
SRUN = """#!{python}
import os, subprocess, sys
assert sys.argv[1] == "--kill-on-bad-exit=1", sys.argv
step = {{"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "localhost", "SLURM_STEP_NUM_TASKS": "2",
         "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2"}}
tasks = [subprocess.Popen(sys.argv[2:], env={{**os.environ, **step, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}})
         for i in range(2)]
sys.exit(max(task.wait() for task in tasks))
"""


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def environment(tmp_path):
    """An environment activated by `.venv/bin/activate`, in which `lenet-keras` is this package's."""
    executable(tmp_path / ".venv/bin/activate", f"PATH={tmp_path / '.venv/bin'}:$PATH\n")
    executable(tmp_path / ".venv/bin/lenet-keras", f'#!/bin/sh\nexec {sys.executable} -m lenet_keras_cli "$@"\n')
    return {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "TF_CONFIG")}


def test_the_slurm_script_trains_one_run_with_all_tasks_and_resumes_it(tmp_path, environment):
    executable(tmp_path / ".venv/bin/srun", SRUN.format(python=sys.executable))
    for epochs in ("1", "2"):
        options = ["--dataset", "fashion_mnist_sample", "--epochs", epochs, "--no-export", "--json"]
        done = subprocess.run(
            [SBATCH, *options], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["epochs"] == int(epochs)
        assert done.stderr.startswith("strategy: multi_worker, ")  # TensorFlow has the usual settings, and is silent
    placement = RunFolder(tmp_path / "runs/fashion_mnist_sample/none/0").read_record()["placement"]
    assert (placement["strategy"], placement["workers"], placement["reason"]) == ("multi_worker", 2, "by Slurm")


def test_the_slurm_script_gives_workers_time_to_save():
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", SBATCH.read_text(), re.MULTILINE))
    assert options["signal"] == "TERM@60"  # to the tasks: with "B:" only the shell would receive it
    assert "requeue" in options
    assert options["open-mode"] == "append"


@pytest.mark.parametrize("version", ["1.27", "1.31", "1.34"])
@pytest.mark.parametrize("document", [SERVICE, CLAIM, JOB], ids=["Service", "PersistentVolumeClaim", "Job"])
def test_the_kubernetes_manifest_follows_the_published_schema(document, version):
    kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_in_a_manifest_would_be_detected():
    misspelt = {**JOB, "spec": {**JOB["spec"], "completionsMode": "Indexed"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, "1.31", strict=True)


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_is_the_worker_of_its_index_among_the_jobs_pods(tmp_path, environment, index):
    executable(tmp_path / "bin/lenet-keras", '#!/bin/sh\nprintf "%s\\n" "$TF_CONFIG" | tr -d "\\n"\necho\necho "$*"\n')
    variables = {each["name"]: each["value"] for each in CONTAINER["env"]}
    answer = subprocess.run(
        [*CONTAINER["command"], *CONTAINER["args"]],
        env={**environment, **variables, "JOB_COMPLETION_INDEX": str(index), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    config, arguments = answer.stdout.splitlines()
    cluster = from_tf_config(config)
    # A pod's host name is the Job's name and its index; the service gives it an address under its own name.
    pods = [f"{JOB['metadata']['name']}-{i}.{SERVICE['metadata']['name']}:2222" for i in range(2)]
    assert (list(cluster.addresses), cluster.index) == (pods, index)
    assert "--strategy multi_worker --resume auto" in arguments
    assert arguments.endswith("--reg weight_decay --batch-size 512")


def test_the_parts_of_the_manifest_match():
    spec, pod = JOB["spec"], JOB["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    workers = next(each["value"] for each in CONTAINER["env"] if each["name"] == "WORKERS")
    assert spec["completions"] == spec["parallelism"] == int(workers)
    assert SERVICE["spec"]["clusterIP"] == "None"
    assert SERVICE["spec"]["selector"] == {"job-name": JOB["metadata"]["name"]}  # which the Job's controller sets
    assert pod["subdomain"] == SERVICE["metadata"]["name"]
    assert SERVICE["spec"]["publishNotReadyAddresses"] is True
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    assert CONTAINER["volumeMounts"][0]["mountPath"] == CONTAINER["workingDir"]


def test_the_manifest_names_the_image_that_the_dockerfile_builds():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert CONTAINER["image"] == f"lenet-keras:{version}"
    assert f"docker build --tag lenet-keras:{version} .\n" in dockerfile
    assert set(re.findall(r"lenet-keras:([\d.]+)", dockerfile)) == {version}
    # The volume is writable for the user that the image runs as.
    group = JOB["spec"]["template"]["spec"]["securityContext"]["fsGroup"]
    assert re.search(rf"^USER \d+:{group}$", dockerfile, re.MULTILINE)
