"""Workers that meet, on real sockets: threads stand for the processes."""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lenet_keras.distribution import rendezvous
from lenet_keras.distribution.cluster import Cluster
from lenet_keras.distribution.local_workers import free_addresses
from lenet_keras.distribution.rendezvous import meet, refuse, send_off
from lenet_keras.errors import LenetKerasError

GREETING = {"batch_size": 64, "tensorflow version": "2.21.0", "devices": None, "rate": 0.1}


@pytest.fixture
def workers():
    addresses = free_addresses(3)
    return [Cluster(addresses, index, "TF_CONFIG") for index in range(3)]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as threads:
        yield threads


def ignore(notice):
    pass


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
def test_workers_meet_whoever_comes_first(workers, pool, order):
    meetings = []
    for index in order:
        meetings.append(pool.submit(meet, workers[index], GREETING, 20, ignore))
        time.sleep(0.05)
    assert [meeting.result(20) for meeting in meetings] == [None] * 3


def test_the_chiefs_port_is_free_when_they_have_met(workers, pool):
    """TensorFlow listens there next."""
    for meeting in [pool.submit(meet, worker, GREETING, 20, ignore) for worker in workers]:
        meeting.result(20)
    socket.create_server(address(workers[0]), reuse_port=False).close()


def test_nobody_goes_on_before_all_are_there(workers, pool):
    early = [pool.submit(meet, worker, GREETING, 20, ignore) for worker in workers[:2]]
    with pytest.raises(TimeoutError):
        early[0].result(0.5)
    assert not early[1].done()
    meet(workers[2], GREETING, 20, ignore)
    assert [meeting.result(20) for meeting in early] == [None] * 2


def test_all_who_came_are_told_who_did_not(workers, pool):
    meetings = [pool.submit(meet, worker, GREETING, 1, ignore) for worker in workers[:2]]
    for meeting in meetings:
        with pytest.raises(LenetKerasError, match=r"^worker 2 \(127.0.0.1:\d+\) did not come within 1 s \(--cluster-t"):
            meeting.result(20)


def test_a_chief_that_does_not_come_is_named(workers):
    message = r"^worker 0 \(127.0.0.1:\d+\), the chief, did not come within 0.5 s \(--cluster-timeout\): Connection ref"
    with pytest.raises(LenetKerasError, match=message):
        meet(workers[1], GREETING, 0.5, ignore)


def test_a_host_without_an_address_is_waited_for_too():
    """As a pod's, before its name is published."""
    cluster = Cluster(("no-such-host.invalid:1", "127.0.0.1:1"), 1, "TF_CONFIG")
    with pytest.raises(LenetKerasError, match=r"did not come within 0.5 s .*: \w+"):
        meet(cluster, GREETING, 0.5, ignore)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({**GREETING, "batch_size": 32}, "worker 2 .* with batch_size 32, the chief with 64"),
        ({**GREETING, "tensorflow version": "2.20.0"}, r"tensorflow version '2.20.0', the chief with '2.21.0'"),
        ({**GREETING, "more": 1}, "with more 1, the chief with None"),
    ],
)
def test_all_are_told_of_a_worker_that_was_started_otherwise(workers, pool, theirs, message):
    greetings = [GREETING, GREETING, theirs]
    meetings = [pool.submit(meet, *each, 20, ignore) for each in zip(workers, greetings, strict=True)]
    for meeting in meetings:
        with pytest.raises(LenetKerasError, match=message):
            meeting.result(20)


def test_who_waits_long_is_told_for_whom(workers, pool, monkeypatch):
    monkeypatch.setattr(rendezvous, "_NOTICE_AFTER", 0.2)
    notices = [[], []]
    follower = pool.submit(meet, workers[1], GREETING, 20, notices[1].append)
    while not notices[1]:
        time.sleep(0.02)
    chief = pool.submit(meet, workers[0], GREETING, 20, notices[0].append)
    while not notices[0]:
        time.sleep(0.02)
    meet(workers[2], GREETING, 20, ignore)
    chief.result(20)
    follower.result(20)
    assert notices[0] == [f"waiting for {workers[0].name(2)}"]
    assert notices[1] == [f"{workers[1].name(1)} waits for {workers[1].name(0)}, the chief: Connection refused"]


@pytest.mark.parametrize(
    "said",
    [
        b"", b"\n", b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b"[]\n", b"3\n", b'{"index": 1}\n', b"\xff\xfe\n",
        b'{"index": 0, "greeting": {}}\n', b'{"index": 9, "greeting": {}}\n', b'{"index": [1], "greeting": {}}\n',
        b'{"index": 1, "greeting": 5}\n', b"x" * 200_000, b"[" * 60_000 + b"\n",
    ],
)  # fmt: skip
def test_strangers_at_the_chiefs_port_are_passed_over(workers, pool, said):
    chief = pool.submit(meet, workers[0], GREETING, 20, ignore)
    with connected(workers[0]) as stranger, contextlib.suppress(ConnectionError):
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
    others = [pool.submit(meet, worker, GREETING, 20, ignore) for worker in workers[1:]]
    assert [meeting.result(20) for meeting in [chief, *others]] == [None] * 3


def test_a_silent_stranger_keeps_nobody_from_meeting(workers, pool, monkeypatch):
    monkeypatch.setattr(rendezvous, "_PATIENCE", 0.3)
    chief = pool.submit(meet, workers[0], GREETING, 20, ignore)
    with connected(workers[0]):
        others = [pool.submit(meet, worker, GREETING, 20, ignore) for worker in workers[1:]]
        assert [meeting.result(20) for meeting in [chief, *others]] == [None] * 3


def test_a_worker_that_went_again_is_not_there(workers, pool):
    chief = pool.submit(meet, workers[0], GREETING, 3, ignore)
    with connected(workers[0]) as gone:
        rendezvous._send(gone, {"index": 1, "greeting": GREETING})
    with pytest.raises(LenetKerasError, match=r"worker 1 .*worker 2 .*did not come"):
        chief.result(20)


def test_a_worker_that_was_started_anew_counts_once(workers, pool):
    chief = pool.submit(meet, workers[0], GREETING, 20, ignore)
    with connected(workers[0]) as first:
        rendezvous._send(first, {"index": 1, "greeting": {**GREETING, "batch_size": 1}})
        second = pool.submit(meet, workers[1], GREETING, 20, ignore)
        assert first.recv(1) == b""  # given up for the new one
        meet(workers[2], GREETING, 20, ignore)
    second.result(20)
    chief.result(20)


def test_a_worker_waits_for_a_chief_that_is_started_anew(workers, pool):
    follower = pool.submit(meet, workers[1], GREETING, 20, ignore)
    with socket.create_server(address(workers[0])) as killed:
        killed.accept()[0].close()
    others = [pool.submit(meet, worker, GREETING, 20, ignore) for worker in (workers[0], workers[2])]
    assert [meeting.result(20) for meeting in [follower, *others]] == [None] * 3


def test_a_chief_that_cannot_train_says_so_to_those_who_come(workers, pool):
    telling = pool.submit(refuse, workers[0], "the folder is in use")
    meetings = [pool.submit(meet, worker, GREETING, 20, ignore) for worker in workers[1:]]
    for meeting in meetings:
        with pytest.raises(LenetKerasError, match=r"worker 0 \(.*\) cannot train: the folder is in use"):
            meeting.result(20)
    telling.result(20)


def test_a_port_that_is_taken_is_named(workers):
    with socket.create_server(address(workers[0])), pytest.raises(OSError, match="in use") as refused:
        meet(workers[0], GREETING, 1, ignore)
    assert refused.value.filename == workers[0].addresses[0]


def test_waiting_can_be_interrupted(workers):
    """TensorFlow's own waiting cannot."""
    import signal

    main = threading.get_ident()
    timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        meet(workers[0], GREETING, 30, ignore)
    assert time.monotonic() - begun < 10


def test_a_chief_with_nothing_left_to_train_sends_those_off_who_come(workers, pool, monkeypatch):
    monkeypatch.setattr(rendezvous, "_SENDING_OFF", 2)
    sending = pool.submit(send_off, workers[0], {"epochs": 3})
    assert meet(workers[2], GREETING, 20, ignore) == {"epochs": 3}
    sending.result(20)  # it does not wait for the one who never comes
