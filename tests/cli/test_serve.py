"""`lenet-keras serve`, and `predict --url` with the server that it starts."""

import http.client
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from PIL import Image
from tensorflow_serving.config import model_server_config_pb2

from lenet_keras.data.load import load
from lenet_keras.serving.launch import IMAGE
from lenet_keras_cli.main import main

NAME = "lenet5_weight_decay_fashion_mnist_sample"


@pytest.fixture(scope="module")
def boot(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "boot.png"
    Image.fromarray(load("fashion_mnist_sample").test.images[0, :, :, 0]).save(path)
    return path


def start(lenet_keras, work, *arguments, path=None, home=None, descriptors=1024):
    environment = {**os.environ, **({"PATH": path} if path else {}), **({"XDG_CACHE_HOME": str(home)} if home else {})}
    limited = ["bash", "-c", f'ulimit -n {descriptors}; exec "$@"', "bash"]
    return subprocess.Popen(
        [*limited, lenet_keras, "serve", *arguments], cwd=work, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(lenet_keras, trained):
    """Where an embedded server over what `trained` exported is: addresses for REST and gRPC, the process number, and
    the address of its only model.

    It has few descriptors.
    """
    ports = ["--rest-port", "0", "--grpc-port", "0"]
    process = start(lenet_keras, trained[0], "--backend", "embedded", *ports, descriptors=150)
    rest, grpc = (re.search(r"[\d.]+:\d+", process.stdout.readline())[0] for _ in range(2))
    yield rest, grpc, process.pid, process.stdout.readline().split()[1]
    process.terminate()
    _, rest_of_stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in rest_of_stderr
    assert len(rest_of_stderr.splitlines()) < 20


def test_the_request_in_the_model_card_works(served, trained):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    card = (trained[0] / "exported_models" / NAME / "README.md").read_text()
    line = next(line for line in card.splitlines() if line.startswith("curl "))
    assert "http://localhost:8501/" in line
    line = line.replace("localhost:8501", served[0]) + " --silent --noproxy '*'"
    answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert set(json.loads(answer.stdout)["predictions"][0]) == {"probabilities", "class_id", "class_name"}


def test_the_address_that_is_printed_for_a_model_answers(served):
    with urllib.request.urlopen(served[3]) as reply:
        assert json.load(reply)["model_version_status"][0]["state"] == "AVAILABLE"
    assert served[3].endswith(f"/v1/models/{NAME}")


def test_more_idle_connections_than_descriptors_keep_nobody_waiting(served):
    host, _, port = served[0].rpartition(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(200)]
    connection = http.client.HTTPConnection(served[0], timeout=60)
    connection.request("GET", f"/v1/models/{NAME}")
    assert connection.getresponse().status == 200
    for each in (*idle, connection):
        each.close()


def test_memory_stays_whatever_is_sent(served, monkeypatch):
    """The short form of benchmarks/serving_soak.py, whose functions these are."""
    path = Path(__file__).parents[2] / "benchmarks" / "serving_soak.py"
    spec = importlib.util.spec_from_file_location("serving_soak", path)
    soak = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "serving_soak", soak)  # dataclasses look their module up
    spec.loader.exec_module(soak)
    monkeypatch.setattr(soak, "MODEL", NAME)
    monkeypatch.setattr(soak, "PREDICT", f"/v1/models/{NAME}:predict")
    rest, grpc = (int(address.rpartition(":")[2]) for address in served[:2])
    images = load("fashion_mnist_sample").test.images
    record, body, chance = soak.Record(), soak.good_body(images), random.Random(0)

    def memory():
        soak.send_good(rest, body, record, soak.count(100))
        return soak.resident_mib(served[2])

    def attack():
        soak.break_off(rest, 12)
        soak.attack_rest(rest, 60, chance, images)
        soak.attack_grpc(grpc, 40, chance)

    attack()
    first = memory()
    with soak.good_clients(rest, body, record):
        for _ in range(3):
            attack()
    assert memory() < first * (1 + soak.TOLERANCE)
    assert record.lost == {}


def test_predict_by_both_protocols_names_the_class_and_what_answered(served, run, trained, boot):
    local = json.loads(run("predict", boot, "--json", cwd=trained[0]).stdout)[0]
    for url in (f"grpc://{served[1]}/{NAME}/labels/stable", f"http://{served[0]}/v1/models/{NAME}/labels/stable"):
        process = run("predict", boot, "--url", url, "--json", cwd=trained[0])
        assert process.returncode == 0, process.stderr
        answer = json.loads(process.stdout)[0]
        assert list(answer) == list(local)
        for key in ("image", "class_id", "class_name", "version", "looks_inverted"):
            assert answer[key] == local[key]
        assert answer["version"] == 1
        for key in ("probability", "probabilities"):
            assert answer[key] == pytest.approx(local[key], abs=1e-5)
    table = run("predict", boot, "--url", url, cwd=trained[0])
    assert f"{NAME}/labels/stable, version 1" in table.stdout
    assert re.search(
        rf"boot\.png +{re.escape(local['class_name'])} +\d+\.\d %", re.sub(r"\S*/boot", "boot", table.stdout)
    )
    assert table.stderr == ""


def test_inverted_images_are_inverted_before_they_are_sent(served, run, trained, boot, tmp_path):
    Image.fromarray(255 - load("fashion_mnist_sample").test.images[0, :, :, 0]).save(tmp_path / "inverted.png")
    url = f"http://{served[0]}/v1/models/{NAME}"
    original = json.loads(run("predict", boot, "--url", url, "--json", cwd=tmp_path).stdout)[0]
    plain = run("predict", "inverted.png", "--url", url, "--json", cwd=tmp_path)
    assert "looks inverted" in plain.stderr
    restored = json.loads(run("predict", "inverted.png", "--url", url, "--invert", "--json", cwd=tmp_path).stdout)[0]
    assert restored["probabilities"] == original["probabilities"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--url", "http://{rest}/v1/models/nope", "--wait", "0"], 1, "Could not find any versions of model nope"),
        (["--url", "nonsense"], 2, "is not the URL of a served model"),
        (["--url", "http://{rest}/v1/models/m", "--model", "runs"], 2, "--model does nothing with --url"),
        (["--wait", "5"], 2, "--wait does nothing without --url"),
    ],
)
def test_a_bad_request_is_one_line(served, run, trained, boot, arguments, code, message):
    process = run("predict", boot, *(word.format(rest=served[0]) for word in arguments), cwd=trained[0])
    assert process.returncode == code
    assert message in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr


def test_a_port_in_use_is_one_line(lenet_keras, trained):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = start(lenet_keras, trained[0], "--backend", "embedded", "--rest-port", port, "--grpc-port", "0")
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.splitlines()[-1] == f"Error: 127.0.0.1:{port}: Address already in use"
    assert "Traceback" not in error


def test_without_exports_the_folder_is_named(run, tmp_path):
    process = run("serve", cwd=tmp_path)
    assert process.returncode == 2
    assert "'exported_models' does not exist" in process.stderr.splitlines()[-1]


SERVER = """#!/bin/sh
echo "$@" > {record}
trap 'echo "stopped gracefully" >> {record}; exit 0' TERM
while :; do sleep 0.1; done
"""


@pytest.fixture
def fakes(tmp_path):
    """A folder of programs that stand in for TensorFlow Serving's binary, which records its arguments, and Docker."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(name, text):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    make("tensorflow_model_server", SERVER.format(record=tmp_path / "server.txt"))
    make("docker", "#!/bin/sh\n[ $1 = version ] && echo 28.0\n")
    return folder


def models_in(path):
    config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    return {model.name: model for model in config.model_config_list.config}


def test_the_real_binary_is_started_configured_and_stopped(lenet_keras, trained, fakes, tmp_path, run):
    work = shutil.copytree(trained[0], tmp_path / "work")
    path = f"{fakes}:{os.environ['PATH']}"
    process = start(lenet_keras, work, "--grpc-port", "8600", "--rest-port", "8601", path=path, home=tmp_path / "cache")
    record = tmp_path / "server.txt"
    lines = iter(process.stderr.readline, "")
    assert "listens on all addresses" in next(lines)
    assert next(lines).startswith("starting: tensorflow_model_server --port=8600 --rest_api_port=8601 ")
    while not (record.exists() and record.read_text().endswith("\n")):
        assert process.poll() is None
    flags = dict(re.findall(r"--(\w+)=(\S+)", record.read_text()))
    assert (flags["port"], flags["rest_api_port"], flags["enable_batching"]) == ("8600", "8601", "true")
    for flag in ("batching_parameters_file", "monitoring_config_file"):
        assert os.path.isfile(flags[flag])  # noqa: PTH113
    config = tmp_path / flags["model_config_file"]
    model = models_in(config)[NAME]
    assert model.base_path == str(work / "exported_models" / NAME)
    assert list(model.model_version_policy.specific.versions) == [1]
    assert not model.version_labels  # the stand-in never says that the version is AVAILABLE

    shutil.copytree(work / "exported_models" / NAME / "1", work / "exported_models" / NAME / "2")
    while list(models_in(config)[NAME].model_version_policy.specific.versions) != [1, 2]:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert record.read_text().endswith("stopped gracefully\n")


@pytest.fixture
def serve_in_process(trained, fakes, tmp_path, monkeypatch):
    """Call `lenet-keras serve` in this process, which has imported TensorFlow already."""
    monkeypatch.setenv("PATH", f"{fakes}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(trained[0])
    return lambda *arguments: CliRunner().invoke(main, ["serve", *arguments])


def test_a_server_that_ends_by_itself_is_a_failure(serve_in_process, fakes):
    (fakes / "tensorflow_model_server").write_text("#!/bin/sh\nexit 3\n")
    result = serve_in_process()
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: tensorflow_model_server ended with exit code 3"


def test_what_the_real_server_knows_too_is_passed_on_and_the_rest_refused(serve_in_process):
    words = serve_in_process("--print-command", "--cors", "--rest-timeout", "2.5").stdout.split()
    assert {"--rest_api_enable_cors_support=true", "--rest_api_timeout_in_ms=2500"} <= set(words)
    assert "--enable_grpc_healthcheck_service=true" in words
    refused = serve_in_process("--print-command", "--max-images", "5")
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1] == "Error: --max-images does nothing with TensorFlow Serving."


@pytest.mark.parametrize("arguments", [(), ("--print-command",)])
def test_an_address_that_the_binary_would_ignore_is_refused(serve_in_process, arguments):
    result = serve_in_process("--host", "10.0.0.1", *arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: --host does nothing with tensorflow_model_server")


def test_a_cache_that_cannot_be_written_to_is_named_with_the_variable_that_helps(serve_in_process, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    result = serve_in_process("--print-command")
    assert result.exit_code == 1
    assert re.search(r"/dev/null/.*: Not a directory; XDG_CACHE_HOME can name", result.stderr.splitlines()[-1])


def test_the_container_has_the_right_mounts_ports_and_flags(serve_in_process, trained, fakes, tmp_path):
    (fakes / "tensorflow_model_server").unlink()
    result = serve_in_process("--print-command")
    assert result.exit_code == 0
    words = result.stdout.split()
    assert words[:2] == ["docker", "run"]
    assert {"127.0.0.1:8501:8501", "127.0.0.1:8500:8500", f"{trained[0]}/exported_models:/models:ro", IMAGE} <= set(
        words
    )
    configs = next(word for word in words if word.endswith(":/configs:ro")).partition(":")[0]
    assert models_in(tmp_path / configs / "models.config")[NAME].base_path == f"/models/{NAME}"
    assert "--model_config_file=/configs/models.config" in words
    assert "--rest_api_timeout_in_ms=30000" in words
