"""Several real processes train one run: the same as one, and what happens when one of them is lost."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from lenet_keras import train
from lenet_keras.checkpoint import StateStore
from lenet_keras.distribution.cluster import free_addresses, tf_config
from lenet_keras.runs import RunFolder

from ..distribution.processes import TRAIN, Worker, cluster
from .comparison import assert_same_run, config, variables

LONG = ["--epochs", "16", "--learning-rate", "1e-3", "--batch-size", "12", "--reg", "dropout", "--run-dir", "run"]


def losses(run_dir):
    rows = RunFolder(run_dir).history_csv.read_text().splitlines()[1:]
    return np.array([[float(row.split(",")[i]) for i in (1, 3)] for row in rows])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of two workers."""
    folder = tmp_path_factory.mktemp("whole")
    with cluster(2, *LONG, folder=folder) as workers:
        assert [worker.result()[0] for worker in workers] == [0, 0]
    return folder / "0" / "run"


@pytest.mark.parametrize(("count", "reg", "tolerance"), [(3, "weight_decay", 1e-4), (2, "batch_norm", 1e-3)])
def test_workers_train_like_one_process(tmp_path, count, reg, tolerance):
    """66 steps of 12 images, and evaluation of every image once."""
    settings = config(reg=reg, epochs=2, batch_size=12, learning_rate=1e-4)
    alone = train(settings, tmp_path / "alone").metrics
    options = ["--epochs", 2, "--batch-size", 12, "--learning-rate", 1e-4, "--reg", reg, "--run-dir", "run"]
    with cluster(count, *options, folder=tmp_path) as workers:
        results = [worker.result() for worker in workers]
    assert [code for code, _, _ in results] == [0] * count, results
    np.testing.assert_allclose(losses(tmp_path / "0" / "run"), losses(tmp_path / "alone"), atol=tolerance, rtol=0)
    together = RunFolder(tmp_path / "0" / "run").read_metrics()
    for split in ("train", "validation", "test"):
        assert together[split]["loss"] == pytest.approx(alone[split]["loss"], abs=tolerance)
    if reg != "batch_norm":
        ours, theirs = variables(tmp_path / "0" / "run"), variables(tmp_path / "alone")
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4, rtol=0, err_msg=name)


def test_only_the_chief_writes_and_reports(tmp_path, monkeypatch):
    """It exports for all of them. Proxies are for the internet only."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    options = ["--epochs", 1, "--run-dir", "run", "--json"]
    exporting = [word for word in TRAIN if word != "--no-export"]
    with cluster(2, *options, folder=tmp_path, command=exporting) as workers:
        chief, other = (worker.result() for worker in workers)
    assert (chief[0], other[0]) == (0, 0)
    assert sorted(path.name for path in (tmp_path / "0").iterdir()) == ["exported_models", "run"]
    assert json.loads(chief[1])["export"] == "exported_models/lenet5_none_fashion_mnist_sample/1"
    placement = RunFolder(tmp_path / "0" / "run").read_record()["placement"]
    assert {name: placement[name] for name in ("strategy", "workers", "replicas", "devices")} == {
        "strategy": "multi_worker", "workers": 2, "replicas": 2, "devices": ["CPU:0"],
    }  # fmt: skip
    assert other[1:] == ("", "")
    assert list((tmp_path / "1").iterdir()) == []


@pytest.mark.parametrize("lost", [1, 0])
def test_when_a_worker_is_killed_the_other_reports_it_and_the_run_can_be_resumed(tmp_path, whole, lost):
    with cluster(2, *LONG, folder=tmp_path) as workers:
        workers[0].wait_for("epoch 3/16")
        workers[lost].process.kill()
        killed_at = time.monotonic()
        code, _, last = workers[1 - lost].result()
        assert time.monotonic() - killed_at < 60
    assert code == 1
    assert re.match(rf"Error: worker {1 - lost} \(.*\) lost worker {lost} \(127.0.0.1:\d+\), .*--resume\.$", last)
    run_dir = tmp_path / "0" / "run"
    epochs = len(StateStore(run_dir).read().history)
    assert 2 <= epochs < 16
    if lost == 1:
        shutil.copytree(run_dir, tmp_path / "moved")

    with cluster(2, *LONG, "--resume", folder=tmp_path) as workers:
        assert [worker.result()[0] for worker in workers] == [0, 0]
    assert_same_run(run_dir, whole)
    if lost == 1:
        # One process instead of two has the same order and the same masks.
        settings = config(epochs=epochs + 2, batch_size=12, reg="dropout")
        train(settings, tmp_path / "moved", resume=True)
        np.testing.assert_allclose(losses(tmp_path / "moved"), losses(whole)[: epochs + 2], atol=2e-3, rtol=0)


def test_a_signal_to_one_worker_stops_all_at_one_step_and_loses_none(tmp_path, whole):
    """As when one machine of several is preempted."""
    with cluster(2, *LONG, folder=tmp_path) as workers:
        workers[0].wait_for("epoch 2/16")
        workers[1].process.send_signal(signal.SIGTERM)
        results = [worker.result() for worker in workers]
    assert [code for code, _, _ in results] == [130, 143]
    assert "--resume" in results[0][2]
    run_dir = tmp_path / "0" / "run"
    assert 1 <= len(StateStore(run_dir).read().history) < 16
    with cluster(2, *LONG, "--resume", folder=tmp_path) as workers:
        assert [worker.result()[0] for worker in workers] == [0, 0]
    assert_same_run(run_dir, whole)


def test_what_the_chief_rejects_all_workers_receive(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "0" / "run")
    with cluster(2, *LONG, folder=tmp_path) as workers:
        (chief, _, reason), (other, _, received) = (worker.result() for worker in workers)
    assert (chief, other) == (2, 1)
    assert reason == (
        "Error: run already holds a finished run. "
        "Continue it with --resume, replace it with --overwrite, or choose another folder with --run-dir."
    )
    assert re.match(r"Error: worker 0 \(.*\) cannot train: run already holds a finished run\.$", received)


def test_all_workers_leave_a_finished_run_alone(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "0" / "run")
    with cluster(2, *LONG, "--resume", folder=tmp_path) as workers:
        assert [worker.result()[0] for worker in workers] == [0, 0]
    assert_same_run(tmp_path / "0" / "run", whole)


def test_a_worker_that_does_not_join_is_named_by_all_that_did(tmp_path):
    with cluster(3, *LONG, "--cluster-timeout", "6", folder=tmp_path) as workers:
        workers[2].process.kill()
        results = [worker.result() for worker in workers[:2]]
    for code, _, last in results:
        assert code == 1
        assert re.match(r"Error: worker 2 \(127.0.0.1:\d+\) did not join within 6 s\. .*--cluster-timeout\.$", last)
    assert list((tmp_path / "0").iterdir()) == []


def test_a_worker_with_other_settings_is_named(tmp_path):
    addresses = free_addresses(2)
    workers = [
        Worker([*TRAIN, "--seed", seed, "--run-dir", "run"], {"TF_CONFIG": tf_config(addresses, i)}, tmp_path / str(i))
        for i, seed in enumerate(["1", "2"])
    ]
    for worker in workers:
        code, _, last = worker.result()
        assert code == 1
        assert "was started with seed 2, the chief with 1" in last


def test_workers_of_one_command(tmp_path):
    """--workers starts them, shows the chief's output as its own, and passes Ctrl-C on."""
    command = [*TRAIN, *LONG, "--workers", "2"]
    with_workers = Worker(command, {}, tmp_path)
    with_workers.wait_for("epoch 2/16")
    with_workers.process.send_signal(signal.SIGINT)
    code, out, _ = with_workers.result()
    assert (code, out) == (130, "")
    assert any(line.startswith("Stopped. The progress so far is kept. Continue with: lenet-keras train") and
               "--workers 2 --resume" in line for line in with_workers.lines)  # fmt: skip
    assert (tmp_path / "run" / "state.npz").exists()

    code, out, _ = Worker([*command, "--resume", "--json"], {}, tmp_path).result()
    assert code == 0
    assert json.loads(out)["epochs"] == 16
    assert " --workers 2 " in RunFolder(tmp_path / "run").read_record()["command"]


def test_workers_of_one_command_fail_together(tmp_path):
    command = [*TRAIN, "--workers", "2", "--run-dir", "run", "--batch-size", "33"]
    code, out, last = Worker(command, {}, tmp_path).result()
    assert (code, out) == (2, "")
    assert "32 and 34" in last
    assert list(tmp_path.iterdir()) == []


def started(process):
    """The workers that a command with --workers 2 has started, by number, as soon as there are both."""
    deadline = time.monotonic() + 30
    while True:
        found = {}
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            if match := re.search(rb'"index": (\d)', Path(f"/proc/{child}/environ").read_bytes()):
                found[int(match[1])] = int(child)
        if len(found) == 2:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_of_one_command_that_is_killed_before_the_meeting_is_named(tmp_path):
    command = Worker([*TRAIN, "--workers", "2", "--run-dir", "run"], {}, tmp_path)
    os.kill(started(command.process)[0], signal.SIGKILL)
    command.wait_for("worker 0 (127.0.0.1:", timeout=2)
    code, out, _ = command.result(timeout=20)
    assert (code, out) == (1, "")
    assert re.fullmatch(r"worker 0 \(127.0.0.1:\d+\) was ended by SIGKILL; all workers are stopped", command.lines[0])
    assert list(tmp_path.iterdir()) == []


def test_workers_stop_when_the_command_that_started_them_is_killed(tmp_path):
    command = Worker([*TRAIN, *LONG, "--workers", "2"], {}, tmp_path)
    command.wait_for("epoch 1/16")
    command.process.kill()
    assert command.result()[0] == -signal.SIGKILL
    assert not command.reader.is_alive()  # both workers have ended: nothing else holds the other end of stderr
    assert sum("the process that started the workers has ended" in line for line in command.lines) == 2
    assert any("Continue with: lenet-keras train" in line for line in command.lines)
    assert 1 <= len(StateStore(tmp_path / "run").read().history) < 16


def test_what_to_do_about_a_cluster_that_cannot_train_is_said(tmp_path):
    jobs = {"chief": ["a:1"], "ps": ["b:1"]}
    environment = {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": "ps", "index": 0}})}
    code, _, last = Worker([*TRAIN, "--run-dir", "run"], environment, tmp_path).result()
    assert code == 2
    assert last == (
        "Error: TF_CONFIG names 'ps', but only a chief (or master) and workers train together. "
        "Correct or unset TF_CONFIG, or train in this process alone with --strategy one_device."
    )
    assert list(tmp_path.iterdir()) == []


def test_workers_and_a_cluster_of_another_size_contradict_each_other(tmp_path):
    environment = {"TF_CONFIG": tf_config(("a:1", "b:1", "c:1"), 0)}
    code, _, last = Worker([*TRAIN, "--workers", "2"], environment, tmp_path).result()
    assert code == 2
    assert "2 workers were requested, but TF_CONFIG names 3" in last


def test_workers_cannot_be_combined_with_a_strategy_for_one_process(tmp_path):
    code, _, last = Worker([*TRAIN, "--workers", "2", "--strategy", "mirrored"], {}, tmp_path).result()
    assert code == 2
    assert "--workers cannot be combined with --strategy mirrored" in last
