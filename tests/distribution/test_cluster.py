"""The workers that TF_CONFIG and Slurm's variables name."""

import json
import os
import re

import pytest

from lenet_keras.distribution.cluster import Cluster, cluster_source, find_cluster, tf_config
from lenet_keras.errors import InvalidArgument, InvalidCluster


def config_of(jobs, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


TWO = ["a:1", "b:2"]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """A cluster that these tests may run on must not affect them."""
    for name in [name for name in os.environ if name == "TF_CONFIG" or name.startswith("SLURM")]:
        monkeypatch.delenv(name)


def find(strategy, environ):
    """Return the cluster that a process with these variables finds."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        return find_cluster(strategy)


def test_without_variables_there_is_no_cluster():
    assert find("auto", {}) is None


@pytest.mark.parametrize(
    "text",
    [
        "", " \n", "{}", "null", '{"cluster": null, "task": null}', '{"cluster": {}, "task": {}}',
        '{"task": {"type": "worker", "index": 0}}', '{"cluster": {}, "task": {"type": "master", "index": 0}}',
        '{"cluster": {"worker": [], "ps": [], "evaluator": null}, "task": {"type": "worker", "index": 0}}',
        '{"environment": "cloud", "job": {}, "task": {"type": "chief", "index": 0, "trial": "1"}}',
    ],
)  # fmt: skip
def test_a_tf_config_without_addresses_names_no_cluster(text):
    """Services set it for a process that trains alone, too."""
    assert find("auto", {"TF_CONFIG": text}) is None
    assert find("auto", {**slurm("n2", 0, 0), "TF_CONFIG": text}).source == "Slurm"
    with pytest.raises(InvalidArgument, match="multi_worker needs"):
        find("multi_worker", {"TF_CONFIG": text})


@pytest.mark.parametrize("strategy", ["auto", "multi_worker"])
def test_tf_config_names_the_workers(strategy):
    cluster = find(strategy, config_of({"worker": TWO}, index=1))
    assert cluster == Cluster(("a:1", "b:2"), 1, "TF_CONFIG")
    assert not cluster.is_chief
    assert cluster.name(0) == "worker 0 (a:1)"
    assert find(strategy, {"TF_CONFIG": tf_config(("a:1", "b:2"), 1)}) == cluster


@pytest.mark.parametrize("chief", ["chief", "master"])
@pytest.mark.parametrize(("kind", "index", "expected"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)])
def test_a_chief_precedes_the_workers(chief, kind, index, expected):
    kind = chief if kind == "chief" else kind
    cluster = find("auto", config_of({"worker": TWO, chief: ["c:3"]}, kind, index))
    assert (cluster.addresses, cluster.index) == (("c:3", "a:1", "b:2"), expected)
    assert cluster.is_chief == (kind == chief)


POD = "mnist-{}-{}.team.svc:2222"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(  # Kubeflow's TFJob
            {"cluster": {"master": [POD.format("master", 0)], "worker": [POD.format("worker", 0)]},
             "task": {"type": "worker", "index": 0}, "environment": "cloud"},
            ((POD.format("master", 0), POD.format("worker", 0)), 1), id="TFJob",
        ),
        pytest.param(  # whose pod for the evaluator is not in the cluster
            {"cluster": {"worker": [POD.format("worker", 0), POD.format("worker", 1)]},
             "task": {"type": "worker", "index": 1}, "environment": "cloud"},
            ((POD.format("worker", 0), POD.format("worker", 1)), 1), id="TFJob of workers",
        ),
        pytest.param(
            {"cluster": {"chief": ["pool0-0:2222"], "worker": ["pool1-0:2222", "pool1-1:2222"], "ps": []},
             "environment": "cloud", "job": '{"python_module": ""}',
             "task": {"type": "worker", "index": 1, "cloud": "u-tp", "trial": "2"}},
            (("pool0-0:2222", "pool1-0:2222", "pool1-1:2222"), 2), id="Vertex AI",
        ),
        pytest.param(
            {"cluster": {"worker": ["algo-1:8890", "algo-2:8890"]}, "environment": "cloud",
             "task": {"type": "worker", "index": "0"}},
            (("algo-1:8890", "algo-2:8890"), 0), id="an index as text",
        ),
        pytest.param(
            {"cluster": {"worker": ["[fd00::1]:2222", "[fd00::2]:2222"]}, "task": {"type": "worker", "index": 1}},
            (("[fd00::1]:2222", "[fd00::2]:2222"), 1), id="IPv6",
        ),
    ],
)  # fmt: skip
def test_the_forms_that_services_write_name_the_workers(config, expected):
    cluster = find("auto", {"TF_CONFIG": json.dumps(config)})
    assert (cluster.addresses, cluster.index) == expected


@pytest.mark.parametrize("job", ["chief", "master", "worker"])
def test_the_only_one_in_a_cluster_trains_alone(job):
    environ = config_of({job: ["127.0.0.1:2222"]}, job)
    assert find("auto", environ) is None
    assert find("multi_worker", environ).addresses == ("127.0.0.1:2222",)


def test_a_strategy_for_one_process_ignores_the_cluster():
    assert find("mirrored", {"TF_CONFIG": "nonsense"}) is None
    assert find("auto", config_of({"worker": ["a:1"]})) is None


def test_multi_worker_needs_a_cluster():
    with pytest.raises(InvalidArgument, match=r"multi_worker needs TF_CONFIG or Slurm's srun"):
        find("multi_worker", {})


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "[]", "3", "null", '{"cluster": {}}', '{"cluster": [], "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": 3}, "task": {"type": "worker", "index": 0}}', '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": []}', "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_not_a_tf_config_is_rejected(text):
    with pytest.raises(InvalidArgument, match="TF_CONFIG") as refused:
        find("multi_worker", {"TF_CONFIG": text or "{}"})
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("jobs", "kind", "index", "message"),
    [
        ({"worker": TWO, "ps": ["c:1"]}, "worker", 0, "names 'ps', but only a chief (or master) and workers"),
        ({"worker": TWO, "ps": ["c:1"]}, "ps", 0, "names 'ps'"),
        ({"worker": TWO, "evaluator": ["c:1"]}, "worker", 0, "names 'evaluator'"),
        ({"worker": TWO}, "evaluator", 0, "names 'evaluator'"),
        ({}, "evaluator", 0, "names 'evaluator'"),
        ({"worker": TWO}, "trainer", 0, "names 'trainer'"),
        ({"chief": ["c:1"], "master": ["d:1"]}, "chief", 0, "one chief"),
        ({"worker": "a:1"}, "worker", 0, "must be like"),
        ({"worker": {"0": "a:1"}}, "worker", 0, "must be like"),
        ({"worker": ["a:0"]}, "worker", 0, "host:port. Received: 'a:0'"),
        ({"worker": ["a:65536"]}, "worker", 0, "host:port"),
        ({"worker": ["fd00::1:2222"]}, "worker", 0, "host:port"),
        ({"worker": TWO}, None, 0, "not this process's task"),
        ({"worker": TWO}, "worker", None, "not this process's task"),
        ({"worker": ["a", "b:2"]}, "worker", 0, "host:port. Received: 'a'"),
        ({"worker": ["a:1", 7]}, "worker", 0, "Received: 7"),
        ({"worker": ["http://a:1"]}, "worker", 0, "host:port"),
        ({"worker": ["a:1", "a:1"]}, "worker", 0, "each address once"),
        ({"chief": TWO}, "chief", 0, "one chief"),
        ({"worker": TWO}, "worker", 2, "'worker' 2, is not in its cluster"),
        ({"worker": TWO}, "worker", -1, "not in its cluster"),
        ({"worker": TWO}, "worker", True, "not in its cluster"),
        ({"worker": TWO}, "worker", "2", "not in its cluster"),
        ({"worker": TWO}, "worker", "one", "not in its cluster"),
        ({"worker": TWO}, "worker", 1.0, "not in its cluster"),
        ({"worker": TWO}, "chief", 0, "not in its cluster"),
        ({"worker": TWO}, ["worker"], 0, "not in its cluster"),
    ],
)
def test_an_invalid_tf_config_is_rejected(jobs, kind, index, message):
    with pytest.raises(InvalidCluster, match=re.escape(message)):
        find("auto", config_of(jobs, kind, index))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InvalidCluster):  # before TensorFlow is loaded
        patch.setenv("TF_CONFIG", config_of(jobs, kind, index)["TF_CONFIG"])
        cluster_source("auto")


def test_a_cluster_whose_workers_come_and_go_is_rejected():
    """As of Kubeflow's enableDynamicWorker. Each would otherwise train alone, in the same folder."""
    config = {"sparseCluster": {"worker": {"0": "a:1"}, "ps": []}, "task": {"type": "worker", "index": 0}}
    with pytest.raises(InvalidCluster, match="sparseCluster"):
        find("auto", {"TF_CONFIG": json.dumps(config)})


def slurm(node, local, procid, nodes="n[2,10]", per_node="2(x2)", tasks=4, job=7):
    return {
        "SLURM_JOB_ID": str(job), "SLURM_PROCID": str(procid), "SLURM_LOCALID": str(local), "SLURMD_NODENAME": node,
        "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NODELIST": nodes, "SLURM_STEP_TASKS_PER_NODE": per_node,
    }  # fmt: skip


def test_every_task_of_a_slurm_step_finds_itself_on_its_own_machine():
    """Slurm numbers n2 before n10; TensorFlow's resolver sorts them the other way round."""
    tasks = [("n2", 0, 0), ("n2", 1, 1), ("n10", 0, 2), ("n10", 1, 3)]
    clusters = [find("auto", slurm(*task)) for task in tasks]
    assert len({cluster.addresses for cluster in clusters}) == 1
    assert sorted(cluster.index for cluster in clusters) == [0, 1, 2, 3]
    for (node, local, _), cluster in zip(tasks, clusters, strict=True):
        host, port = cluster.addresses[cluster.index].split(":")
        assert host == node
        assert int(port) % 2 == local
        assert cluster.source == "Slurm"


def test_jobs_that_share_a_machine_have_their_own_ports():
    first, second = (set(find("auto", slurm("n2", 0, 0, job=job)).addresses) for job in (7, 8))
    assert not first & second


def test_a_slurm_step_of_one_task_is_not_a_cluster():
    assert find("auto", slurm("n1", 0, 0, nodes="n1", per_node="1", tasks=1)) is None


@pytest.mark.parametrize("missing", ["SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID", "SLURMD_NODENAME"])
def test_slurm_without_its_variables_is_rejected(missing):
    environ = slurm("n2", 0, 0)
    del environ[missing]
    with pytest.raises(InvalidArgument, match=f"Slurm's variables do not name a cluster.*{missing}"):
        find("auto", environ)


def test_tf_config_takes_precedence_over_slurm():
    assert find("auto", {**slurm("n2", 0, 0), **config_of({"worker": TWO})}).source == "TF_CONFIG"
