"""From settings to a strategy. TensorFlow has four CPU devices in the test process (tests/conftest.py)."""

import contextlib
import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import threading

import pytest
import tensorflow as tf

from lenet_keras import TrainConfig
from lenet_keras.distribution import strategy as module
from lenet_keras.distribution.cluster import Cluster, free_addresses
from lenet_keras.distribution.strategy import bypassing_proxies, place, recorded_cores
from lenet_keras.errors import InvalidArgument, LenetKerasError


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 2)


@pytest.mark.parametrize(
    ("settings", "name", "devices"),
    [
        ({}, "cores", ["CPU:0"]),
        ({"strategy": "cores"}, "cores", ["CPU:0"]),
        ({"batch_size": 32}, "one_device", ["CPU:0"]),
        ({"batch_size": 65}, "one_device", ["CPU:0"]),
        ({"strategy": "one_device"}, "one_device", ["CPU:0"]),
        ({"strategy": "one_device", "devices": "CPU:3"}, "one_device", ["CPU:3"]),
        ({"devices": "CPU:2"}, "one_device", ["CPU:2"]),
        ({"devices": "CPU:1,CPU:3"}, "mirrored", ["CPU:1", "CPU:3"]),
        ({"devices": "CPU:0,CPU:1,CPU:2,CPU:3"}, "mirrored", ["CPU:0", "CPU:1", "CPU:2", "CPU:3"]),
        ({"strategy": "mirrored", "batch_size": 16}, "mirrored", ["CPU:0", "CPU:1"]),
        ({"strategy": "mirrored", "devices": "CPU:0"}, "mirrored", ["CPU:0"]),
    ],
)
def test_settings_choose_strategy_and_devices(two_cores, settings, name, devices):
    placement = place(TrainConfig(**settings))
    assert (placement.name, list(placement.devices), placement.replicas) == (name, devices, len(devices))
    assert [device.rpartition("device:")[2] for device in placement.strategy.extended.worker_devices] == devices
    assert placement.cores == (2 if name == "cores" else 1)
    assert placement.workers.count == 1
    assert placement.reason


def test_the_description_names_devices_shares_and_reason(two_cores):
    assert place(TrainConfig()).describe(64) == (
        "strategy: cores, CPU:0, 32 images of a batch on each of 2 cores; no GPU found, 2 cores"
    )
    assert place(TrainConfig(strategy="mirrored")).describe(64) == (
        "strategy: mirrored, CPU:0, CPU:1, 32 images of a batch each; no GPU found, 2 cores"
    )
    assert place(TrainConfig(strategy="one_device")).describe(64) == "strategy: one_device, CPU:0; as requested"


@pytest.mark.parametrize("started_on", [1, 2, 4])
def test_a_resumed_run_stays_on_as_many_cores_as_before(two_cores, started_on):
    started = place(TrainConfig(), before=started_on)
    assert started.cores == started_on
    assert started.reason == "as before"
    assert recorded_cores({"placement": started.to_json()}) == started_on


@pytest.mark.parametrize(
    "record",
    [
        {}, {"placement": None}, {"placement": {"workers": 1, "cores": 2}},
        {"placement": {"workers": 2, "devices": ["CPU:0"], "cores": 1}},
        {"placement": {"workers": 1, "devices": ["GPU:0"], "cores": 1}},
        {"placement": {"workers": 1, "devices": ["CPU:0"]}},
    ],
)  # fmt: skip
def test_a_run_started_on_anything_else_has_no_number_of_cores(record):
    assert recorded_cores(record) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"devices": "GPU:0"}, "Received: GPU:0; found: no GPU"),
        ({"strategy": "one_device", "devices": "CPU:0,CPU:1"}, "takes one device"),
        ({"batch_size": 65, "devices": "CPU:0,CPU:1"}, "64 and 66"),
        ({"batch_size": 65, "strategy": "mirrored"}, "64 and 66"),
        ({"strategy": "tpu", "devices": "CPU:0"}, "no devices"),
        ({"strategy": "cores", "devices": "CPU:0"}, "no devices"),
    ],
)
def test_devices_that_do_not_fit_are_rejected(two_cores, settings, message):
    with pytest.raises(InvalidArgument, match=message):
        place(TrainConfig(**settings))


def test_a_batch_that_the_workers_cannot_share_is_rejected():
    with pytest.raises(InvalidArgument, match=r"3 devices.* 63 and 66"):
        place(TrainConfig(), Cluster(("a:1", "b:1", "c:1"), 0, "TF_CONFIG"))


@pytest.fixture(params=["Python", "C"])
def handler(request):
    """A handler of SIGTERM, and a function that says whether it is installed."""
    earlier = signal.getsignal(signal.SIGTERM)
    if request.param == "Python":
        received = []
        signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
        yield lambda: signal.raise_signal(signal.SIGTERM) or received == [signal.SIGTERM]
    else:
        with tempfile.TemporaryFile() as file:
            faulthandler.register(signal.SIGTERM, file)
            yield lambda: signal.raise_signal(signal.SIGTERM) or file.tell() > 0
            faulthandler.unregister(signal.SIGTERM)
    signal.signal(signal.SIGTERM, earlier)


@pytest.mark.parametrize("error", [None, RuntimeError("already running"), KeyboardInterrupt()])
@pytest.mark.parametrize("is_main", [True, False])
def test_the_users_sigterm_handler_is_kept_when_tensorflow_connects(monkeypatch, handler, error, is_main):
    """In any thread, whether or not connecting succeeds, and if it is not one of Python's."""

    def connect(cluster_resolver):
        ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(1))  # SIG_IGN, as good as TensorFlow's own handler
        if error:
            raise error
        return tf.distribute.OneDeviceStrategy("/CPU:0")

    def connected():
        with contextlib.suppress(LenetKerasError, KeyboardInterrupt):
            place(TrainConfig(), Cluster(free_addresses(2), 1, "TF_CONFIG"))

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", connect)
    if is_main:
        connected()
    else:
        thread = threading.Thread(target=connected)
        thread.start()
        thread.join()
    assert handler()


@pytest.mark.parametrize(
    ("before", "during"),
    [
        ({}, "10.0.0.1,fd00::2"),
        ({"no_grpc_proxy": "db.local"}, "db.local,10.0.0.1,fd00::2"),
        ({"no_grpc_proxy": "", "no_proxy": "unused"}, "10.0.0.1,fd00::2"),
        ({"no_proxy": "a.local,b.local"}, "a.local,b.local,10.0.0.1,fd00::2"),
    ],
)
@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_hosts_that_the_user_reaches_without_a_proxy_are_kept(monkeypatch, before, during, error):
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    earlier = dict(os.environ)
    cluster = Cluster(("10.0.0.1:2222", "[fd00::2]:2222"), 0, "TF_CONFIG")
    with contextlib.suppress(KeyboardInterrupt), bypassing_proxies(cluster):
        assert dict(os.environ) == {**earlier, "no_grpc_proxy": during}
        if error:
            raise error
    assert dict(os.environ) == earlier
    with bypassing_proxies(None):
        assert dict(os.environ) == earlier


@pytest.mark.parametrize("text", ["", " ", "null", "nonsense", '{"cluster": {"worker": null}}'])
def test_one_process_on_several_devices_takes_no_notice_of_tf_config(monkeypatch, text):
    """TensorFlow does: it fails."""
    monkeypatch.setenv("TF_CONFIG", text)
    assert place(TrainConfig(strategy="mirrored", devices="CPU:0,CPU:1")).replicas == 2
    assert os.environ["TF_CONFIG"] == text


def test_workers_connect_before_anything_else_in_tensorflow_or_not_at_all():
    tf.constant(0)
    with pytest.raises(
        LenetKerasError, match="is already running in this process: multi-worker training must start before"
    ):
        place(TrainConfig(), Cluster(free_addresses(2), 1, "TF_CONFIG"))


def test_a_worker_on_cpus_has_one():
    with pytest.raises(InvalidArgument, match="a worker trains on CPU:0 or on GPUs"):
        place(TrainConfig(devices="CPU:0,CPU:1"), Cluster(("a:1", "b:1"), 0, "TF_CONFIG"))


def test_a_machine_without_a_tpu_says_so(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(LenetKerasError, match="no TPU was found"):
        place(TrainConfig(strategy="tpu"))


def test_a_running_tensorflow_keeps_its_devices(two_cores):
    with pytest.raises(LenetKerasError, match="4 of the 5 CPU devices required"):
        place(TrainConfig(devices="CPU:4"))


def test_a_new_process_starts_as_many_cpu_devices_as_needed():
    program = (
        "from lenet_keras import TrainConfig, runtime\nruntime.load_tensorflow()\n"
        "from lenet_keras.distribution.strategy import place\n"
        "print(place(TrainConfig(batch_size=60, devices='CPU:0,CPU:4,CPU:5')).replicas)\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "3\n"


class FakeGpu:
    """What TensorFlow lists where there is a GPU: none of these machines has one."""

    device_type = "GPU"


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs as far as names go; what is done to them is noted, and a strategy over them is one over CPUs."""
    gpus, grown, visible = [FakeGpu(), FakeGpu()], [], [[]]
    real, mirrored, one = (
        tf.config.list_physical_devices,
        tf.distribute.MirroredStrategy,
        tf.distribute.OneDeviceStrategy,
    )
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: gpus if kind == "GPU" else real(kind))
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: gpus)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: visible.append(devices))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append((gpu, on)))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "Some GPU"})
    asked = []

    def mirrored_over_cpus(devices, cross_device_ops=None):
        asked.append((devices, cross_device_ops))
        return mirrored([device.replace("GPU", "CPU") for device in devices], tf.distribute.ReductionToOneDevice())

    def one_cpu(device):
        asked.append(([device], None))
        return one(device.replace("GPU", "CPU"))

    monkeypatch.setattr(tf.distribute, "MirroredStrategy", mirrored_over_cpus)
    monkeypatch.setattr(tf.distribute, "OneDeviceStrategy", one_cpu)
    return {"gpus": gpus, "grown": grown, "asked": asked, "visible": visible}


@pytest.mark.parametrize(
    ("settings", "name", "asked"),
    [
        ({}, "mirrored", ["/GPU:0", "/GPU:1"]),
        ({"strategy": "one_device"}, "one_device", ["/GPU:0"]),
        ({"devices": "GPU:1"}, "one_device", ["/GPU:1"]),
        ({"strategy": "mirrored"}, "mirrored", ["/GPU:0", "/GPU:1"]),
    ],
)
def test_gpus_are_used_where_there_are_some_and_their_memory_grows(two_gpus, settings, name, asked):
    placement = place(TrainConfig(**settings))
    assert placement.name == name
    assert two_gpus["asked"] == [(asked, None)]  # None: TensorFlow's own way between GPUs, NCCL
    assert two_gpus["grown"] == [(gpu, True) for gpu in two_gpus["gpus"]]
    assert "(Some GPU)" in placement.describe(64)


def test_auto_does_not_silently_leave_out_a_gpu(two_gpus):
    with pytest.raises(InvalidArgument, match=r"2 devices.* 64 and 66"):
        place(TrainConfig(batch_size=65))


def test_cpus_can_be_requested_where_there_are_gpus(two_gpus, two_cores):
    assert place(TrainConfig(devices="CPU:0")).devices == ("CPU:0",)
    assert two_gpus["grown"] == [(gpu, True) for gpu in two_gpus["gpus"]]  # which TensorFlow starts all the same


def test_a_process_that_connects_for_too_long_exits_and_says_why():
    """TensorFlow connects in C++ and lets no Python run meanwhile, as this sleep does not."""
    program = (
        "import ctypes\nfrom lenet_keras import runtime\nruntime.load_tensorflow()\n"
        "from lenet_keras.distribution.strategy import _exiting_after\n"
        "with _exiting_after(60.0, ''): pass\n"
        # PyDLL: with the interpreter's lock held
        "with _exiting_after(0.5, 'one of them was lost'): ctypes.PyDLL(None).sleep(60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=50)
    assert (ended.returncode, ended.stderr) == (1, "Error: one of them was lost\n")
