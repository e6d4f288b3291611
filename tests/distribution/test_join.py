"""Workers that join the chief on real sockets; threads stand in for processes."""

import contextlib
import itertools
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lenet_keras.distribution import join as module
from lenet_keras.distribution.cluster import Cluster, free_addresses
from lenet_keras.distribution.join import join, lead, reject, release
from lenet_keras.errors import ClusterError, ClusterTimeout

MESSAGE = b'{"action": "resume"}\n' + bytes(range(256)) * 4096  # as large as a state
TERMS = {"batch_size": 64, "tensorflow version": "2.21.0", "devices": None, "rate": 0.1}


@pytest.fixture
def workers():
    addresses = free_addresses(3)
    return [Cluster(addresses, index, "TF_CONFIG") for index in range(3)]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as threads:
        yield threads


def start(cluster, terms, timeout):
    """Lead as the chief, or join; returns the chief's message."""
    if cluster.is_chief:
        lead(cluster, terms, MESSAGE, timeout)
        return MESSAGE
    return join(cluster, terms, timeout)


def address(cluster):
    host, port = cluster.addresses[0].split(":")
    return host, int(port)


def connected(cluster):
    """A connection to the chief, as soon as it listens."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(address(cluster))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_workers_join_in_any_order_and_receive_the_chiefs_message(workers, pool, order):
    joins = []
    for index in order:
        joins.append(pool.submit(start, workers[index], TERMS, 20))
        time.sleep(0.05)
    assert [each.result(20) for each in joins] == [MESSAGE] * 3


def test_the_chiefs_port_is_free_once_all_have_joined(workers, pool):
    """TensorFlow listens there next."""
    for each in [pool.submit(start, worker, TERMS, 20) for worker in workers]:
        each.result(20)
    socket.create_server(address(workers[0]), reuse_port=False).close()


def test_no_worker_proceeds_before_all_have_joined(workers, pool):
    early = [pool.submit(start, worker, TERMS, 20) for worker in workers[:2]]
    with pytest.raises(TimeoutError):
        early[0].result(0.5)
    assert not early[1].done()
    start(workers[2], TERMS, 20)
    assert [each.result(20) for each in early] == [MESSAGE] * 2


def test_all_that_joined_receive_the_name_of_the_one_that_did_not(workers, pool):
    joins = [pool.submit(start, worker, TERMS, 1) for worker in workers[:2]]
    for each in joins:
        with pytest.raises(ClusterTimeout, match=r"^worker 2 \(127.0.0.1:\d+\) did not join within 1 s\.$"):
            each.result(20)


def test_a_missing_chief_is_named(workers):
    message = r"^worker 0 \(127.0.0.1:\d+\), the chief, did not join within 0.5 s: Connection refused\.$"
    with pytest.raises(ClusterTimeout, match=message):
        start(workers[1], TERMS, 0.5)


def test_a_host_without_an_address_is_waited_for_as_well():
    """Like that of a pod before its name is published."""
    cluster = Cluster(("no-such-host.invalid:1", "127.0.0.1:1"), 1, "TF_CONFIG")
    with pytest.raises(ClusterError, match=r"did not join within 0.5 s: \w+"):
        start(cluster, TERMS, 0.5)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({**TERMS, "batch_size": 32}, "worker 2 .* with batch_size 32, the chief with 64"),
        ({**TERMS, "tensorflow version": "2.20.0"}, r"tensorflow version '2.20.0', the chief with '2.21.0'"),
        ({**TERMS, "more": 1}, "with more 1, the chief with None"),
    ],
)
def test_all_receive_the_difference_of_a_worker_with_other_terms(workers, pool, theirs, message):
    terms = [TERMS, TERMS, theirs]
    joins = [pool.submit(start, *each, 20) for each in zip(workers, terms, strict=True)]
    for each in joins:
        with pytest.raises(ClusterError, match=message):
            each.result(20)


def test_a_long_wait_is_reported_with_the_missing_workers(workers, pool, monkeypatch, caplog):
    caplog.set_level("INFO", "lenet_keras")
    monkeypatch.setattr(module, "_REPORT_AFTER", 0.5)
    monkeypatch.setattr(module, "_PAUSE", 0.02)  # so that the follower has joined when the chief reports
    follower = pool.submit(start, workers[1], TERMS, 20)
    while len(caplog.messages) < 1:
        time.sleep(0.02)
    chief = pool.submit(start, workers[0], TERMS, 20)
    while len(caplog.messages) < 2:
        time.sleep(0.02)
    start(workers[2], TERMS, 20)
    chief.result(20)
    follower.result(20)
    assert caplog.messages == [
        f"{workers[1].name(1)} is waiting for {workers[1].name(0)}, the chief: Connection refused",
        f"waiting for {workers[0].name(2)}",
    ]


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"\n", b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b"[]\n", b"3\n", b'{"index": 1}\n', b"\xff\xfe\n",
        b'{"index": 0, "terms": {}}\n', b'{"index": 9, "terms": {}}\n', b'{"index": [1], "terms": {}}\n',
        b'{"index": 1, "terms": 5}\n', b"x" * 200_000, b"[" * 60_000 + b"\n",
    ],
)  # fmt: skip
def test_other_connections_to_the_chiefs_port_are_ignored(workers, pool, sent):
    chief = pool.submit(start, workers[0], TERMS, 20)
    with connected(workers[0]) as other, contextlib.suppress(OSError):  # the chief may close it first
        other.sendall(sent)
        other.shutdown(socket.SHUT_WR)
    others = [pool.submit(start, worker, TERMS, 20) for worker in workers[1:]]
    assert [each.result(20) for each in [chief, *others]] == [MESSAGE] * 3


def test_a_silent_connection_keeps_no_worker_from_joining(workers, pool, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.3)
    chief = pool.submit(start, workers[0], TERMS, 20)
    with connected(workers[0]):
        others = [pool.submit(start, worker, TERMS, 20) for worker in workers[1:]]
        assert [each.result(20) for each in [chief, *others]] == [MESSAGE] * 3


@contextlib.contextmanager
def dribbling(connection, sent):
    """Send a byte of `sent` after the other, without end, in the context."""
    is_over = threading.Event()

    def dribble():
        with contextlib.suppress(OSError):  # it was closed
            for byte in itertools.cycle(sent):
                connection.sendall(bytes([byte]))
                if is_over.wait(0.05):
                    break

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("call", ["lead", "reject", "release"])
def test_a_stranger_who_sends_a_byte_now_and_then_does_not_hold_the_chief(workers, pool, monkeypatch, call):
    monkeypatch.setattr(module, "_REJECTION", 0.5)
    calls = {"lead": (start, TERMS, 0.5), "reject": (reject, "no"), "release": (release, b"", 0.5)}
    function, *arguments = calls[call]
    chief = pool.submit(function, workers[0], *arguments)
    with connected(workers[0]) as stranger, dribbling(stranger, b"x"):
        failure = chief.exception(0.5 + 3)
    assert (call == "lead") == isinstance(failure, ClusterTimeout)


def test_a_stranger_who_sends_a_byte_now_and_then_is_disconnected(workers, pool, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.5)
    chief = pool.submit(start, workers[0], TERMS, 20)
    with connected(workers[0]) as stranger, dribbling(stranger, b"x"):
        stranger.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    others = [pool.submit(start, worker, TERMS, 20) for worker in workers[1:]]
    assert [each.result(20) for each in [chief, *others]] == [MESSAGE] * 3


def test_many_strangers_delay_no_worker(workers, pool, monkeypatch):
    """More than are listened to at once: the oldest are disconnected."""
    monkeypatch.setattr(module, "_MOST_UNREAD", 20)
    monkeypatch.setattr(module, "_PATIENCE", 60)
    chief = pool.submit(start, workers[0], TERMS, 60)
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(connected(workers[0])) for _ in range(60)]
        for stranger in strangers[::2]:
            with contextlib.suppress(OSError):
                stranger.sendall(b'{"index": 1')
        others = [pool.submit(start, worker, TERMS, 60) for worker in workers[1:]]
        assert [each.result(10) for each in [chief, *others]] == [MESSAGE] * 3


def test_of_too_many_strangers_the_oldest_is_disconnected(workers, pool, monkeypatch):
    monkeypatch.setattr(module, "_MOST_UNREAD", 3)
    chief = pool.submit(start, workers[0], TERMS, 1)
    with contextlib.ExitStack() as stack:
        first, *_ = [stack.enter_context(connected(workers[0])) for _ in range(4)]
        first.settimeout(0.9)
        assert first.recv(1) == b""
    assert isinstance(chief.exception(20), ClusterTimeout)


def test_a_worker_that_does_not_take_the_message_is_named_and_delays_no_other(workers, pool, monkeypatch):
    monkeypatch.setattr(module, "_TRANSFER", 1)
    message = bytes(32 * 2**20)  # more than the sockets' buffers
    chief = pool.submit(lead, workers[0], TERMS, message, 20)
    with connected(workers[0]) as idle:
        idle.sendall(module._line({"index": 1, "terms": TERMS}))
        assert join(workers[2], TERMS, 20) == message
        with pytest.raises(ClusterError, match=r"^worker 1 \(127.0.0.1:\d+\) joined, but left before training"):
            chief.result(20)


@pytest.mark.parametrize("beginning", [b"", b'{"size": 9', b'{"size": 900000}\n', b'{"size": 99999999999}\n'])
def test_a_stranger_in_the_chiefs_place_does_not_hold_a_worker(workers, pool, monkeypatch, beginning):
    monkeypatch.setattr(module, "_MARGIN", 0.2)
    with socket.create_server(address(workers[0])) as listener, contextlib.ExitStack() as stack:
        follower = pool.submit(start, workers[1], TERMS, 0.5)

        def answer():
            with contextlib.suppress(OSError):  # the listener is closed
                while True:
                    connection = stack.enter_context(listener.accept()[0])
                    connection.sendall(beginning)
                    stack.enter_context(dribbling(connection, b" "))

        answering = threading.Thread(target=answer)
        answering.start()
        failure = follower.exception(0.5 + 3)
        listener.shutdown(socket.SHUT_RDWR)
        answering.join()
    assert isinstance(failure, ClusterTimeout)
    assert f"{workers[0].name(0)}, the chief, did not join within 0.5 s" in str(failure)
    assert ("not a chief's" in str(failure)) == (beginning == b'{"size": 99999999999}\n')  # too large to be read


def test_a_worker_that_left_is_missing(workers, pool):
    chief = pool.submit(start, workers[0], TERMS, 3)
    with connected(workers[0]) as gone:
        gone.sendall(module._line({"index": 1, "terms": TERMS}))
    with pytest.raises(ClusterError, match=r"worker 1 .*worker 2 .*did not join"):
        chief.result(20)


def test_a_restarted_worker_counts_once(workers, pool):
    chief = pool.submit(start, workers[0], TERMS, 20)
    with connected(workers[0]) as first:
        first.sendall(module._line({"index": 1, "terms": {**TERMS, "batch_size": 1}}))
        second = pool.submit(start, workers[1], TERMS, 20)
        assert first.recv(1) == b""  # dropped for the new one
        start(workers[2], TERMS, 20)
    second.result(20)
    chief.result(20)


def test_a_worker_waits_for_a_restarted_chief(workers, pool):
    follower = pool.submit(start, workers[1], TERMS, 20)
    with socket.create_server(address(workers[0])) as killed:
        killed.accept()[0].close()
    others = [pool.submit(start, worker, TERMS, 20) for worker in (workers[0], workers[2])]
    assert [each.result(20) for each in [follower, *others]] == [MESSAGE] * 3


@pytest.mark.parametrize(
    "answer", [b"", b"{}\n", b"[]\n", b'{"size": -1}\n', b'{"size": "9"}\n', b'{"size": 9}\n{}', b"\xff\n"]
)
def test_an_answer_that_is_not_a_chiefs_is_ignored(workers, pool, answer):
    follower = pool.submit(start, workers[1], TERMS, 20)
    with (
        socket.create_server(address(workers[0])) as other,
        other.accept()[0] as connection,
        contextlib.suppress(OSError),  # the worker may close it first
    ):
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1000)
    others = [pool.submit(start, worker, TERMS, 20) for worker in (workers[0], workers[2])]
    assert [each.result(20) for each in [follower, *others]] == [MESSAGE] * 3


def test_a_chief_that_cannot_train_rejects_the_workers_that_join(workers, pool):
    rejecting = pool.submit(reject, workers[0], "the folder is in use")
    joins = [pool.submit(start, worker, TERMS, 20) for worker in workers[1:]]
    for each in joins:
        with pytest.raises(ClusterError, match=r"worker 0 \(.*\) cannot train: the folder is in use"):
            each.result(20)
    rejecting.result(20)


def test_a_port_in_use_is_named(workers):
    with socket.create_server(address(workers[0])), pytest.raises(OSError, match="in use") as failed:
        start(workers[0], TERMS, 1)
    assert failed.value.filename == workers[0].addresses[0]


def test_waiting_can_be_interrupted(workers):
    """TensorFlow's own wait cannot."""
    # A shell starts background processes, perhaps this suite, with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            start(workers[0], TERMS, 30)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 10


def test_a_worker_that_started_before_the_chief_hears_which_one_is_missing(workers, pool, monkeypatch):
    monkeypatch.setattr(module, "_MARGIN", 0.2)
    early = pool.submit(start, workers[1], TERMS, 2)
    time.sleep(1)  # so late does the chief start
    chief = pool.submit(start, workers[0], TERMS, 2)
    for each in (chief, early):
        assert str(each.exception(20)).startswith("worker 2 (")


def test_a_chief_with_nothing_left_to_train_releases_the_workers_that_join(workers, pool):
    releasing = pool.submit(release, workers[0], b'{"epochs": 3}', 2)
    assert start(workers[2], TERMS, 20) == b'{"epochs": 3}'
    releasing.result(20)  # it does not wait for the worker that never joins
