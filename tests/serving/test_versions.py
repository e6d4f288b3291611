"""Versions appear and disappear while a server answers requests."""

import errno
import http.client
import json
import shutil
import threading
import time

import pytest

from lenet_keras.serving.config import version_folders
from lenet_keras.serving.embedded.server import running_server
from lenet_keras.serving.embedded.signatures import ServingError
from lenet_keras.serving.embedded.store import ModelStore
from lenet_keras.serving.embedded.versions import ModelVersion, State
from lenet_keras.serving.endpoint import ModelSpec

QUICK = 0.02  # seconds between two scans
DIGITS = ModelSpec("digits")


def states(store, model=DIGITS):
    try:
        return {number: state for number, state, _ in store.versions(model)}
    except ServingError:
        return {}


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(QUICK)


def add(exports, own, source, number):
    """Add a version as exports do: built at a temporary path, then renamed."""
    temporary = own / "digits" / ".0123abcd.export"
    shutil.copytree(exports / "digits" / str(source), temporary)
    temporary.rename(own / "digits" / str(number))


class Users:
    """Threads that send requests continually, and record each answer."""

    def __init__(self, server, images, count=3):
        self.answers, self.stop = [], threading.Event()
        self._server = server
        self._body = json.dumps({"signature_name": "uint8", "instances": images[:2].tolist()})
        self._threads = [threading.Thread(target=self._send) for _ in range(count)]

    def _send(self):
        connection = http.client.HTTPConnection(self._server.host, self._server.rest_port, timeout=60)
        while not self.stop.is_set():
            connection.request("POST", "/v1/models/digits:predict", self._body)
            answer = connection.getresponse()
            content = json.loads(answer.read())
            self.answers.append(
                (answer.status, content["predictions"][0]["class_id"] if "predictions" in content else content)
            )
        connection.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self._threads:
            thread.join()


def test_new_versions_take_over_and_old_ones_are_released_without_a_failed_request(own_exports, exports, images):
    with running_server(own_exports, 0, 0, interval=QUICK) as server, Users(server, images) as users:
        wait_for(lambda: len(users.answers) > 20)
        for number, source in ((2, 2), (3, 1), (4, 2), (5, 1)):
            add(exports, own_exports, source, number)
            wait_for(lambda number=number: states(server.store).get(number) is State.AVAILABLE)
            wait_for(lambda number=number: states(server.store).get(number - 2, State.END) is State.END)
            seen = len(users.answers)
            wait_for(lambda seen=seen: len(users.answers) > seen + 10)
        assert states(server.store)[4] is State.AVAILABLE  # the one before the newest stays, as `stable`
    assert {status for status, _ in users.answers} == {200}
    assert len({answer for _, answer in users.answers}) > 1  # the two models differ


def test_a_version_that_cannot_be_loaded_is_refused_and_the_old_one_stays(own_exports, exports, images, caplog):
    caplog.set_level("INFO", "lenet_keras")
    with running_server(own_exports, 0, 0, interval=QUICK) as server, Users(server, images) as users:
        broken = own_exports / "digits" / ".0123abcd.export"
        shutil.copytree(exports / "digits" / "2", broken)
        shutil.rmtree(broken / "variables")
        broken.rename(own_exports / "digits" / "2")
        wait_for(lambda: states(server.store).get(2) is State.END)
        seen = len(users.answers)
        wait_for(lambda: len(users.answers) > seen + 10)
        error = next(error for number, _, error in server.store.versions(DIGITS) if number == 2)
        assert "\n" not in str(error)
        assert states(server.store)[1] is State.AVAILABLE
        assert any("version 2 of digits cannot be served" in notice for notice in caplog.messages)
    assert {status for status, _ in users.answers} == {200}


def test_the_last_working_version_stays_whatever_comes_after_it(own_exports):
    store = ModelStore(own_exports)
    store.poll()
    for number in (2, 3):
        (own_exports / "digits" / str(number)).mkdir()
    for _ in range(2):
        store.poll()
        assert states(store) == {1: State.AVAILABLE, 2: State.END, 3: State.END}


def test_a_label_moves_when_its_version_is_available_not_before(own_exports, exports, monkeypatch):
    store, seen = ModelStore(own_exports), []

    def labels():
        found = {}
        for label in ("stable", "canary"):
            try:
                with store.lease(ModelSpec("digits", label=label)) as version:
                    found[label] = version.number
            except ServingError as error:
                found[label] = str(error)
        return found

    load = ModelVersion.load
    monkeypatch.setattr(ModelVersion, "load", lambda version: (seen.append(labels()), load(version)))
    missing = {label: f"Unrecognized servable version label: {label}" for label in ("stable", "canary")}
    store.poll()
    assert seen.pop() == missing
    assert labels() == {"stable": 1, "canary": 1}
    add(exports, own_exports, 2, 2)
    store.poll()
    assert seen.pop() == {"stable": 1, "canary": 1}
    assert labels() == {"stable": 1, "canary": 2}
    for number in (3, 4):  # neither can be loaded: the labels stay, and so do their versions
        (own_exports / "digits" / str(number)).mkdir()
        store.poll()
    assert labels() == {"stable": 2, "canary": 2}
    add(exports, own_exports, 1, 5)
    store.poll()
    assert labels()["canary"] == 5
    assert states(store)[2] is State.AVAILABLE


def test_what_cannot_be_read_for_a_moment_stays_as_it_was_and_is_reported_once(own_exports, monkeypatch, caplog):
    store = ModelStore(own_exports)
    store.poll()
    failing = []

    def listed(folder):
        if failing:
            raise OSError(errno.ESTALE, "Stale file handle", str(folder))
        return version_folders(folder)

    monkeypatch.setattr("lenet_keras.serving.embedded.store.version_folders", listed)
    failing.append(True)
    store.poll()
    store.poll()
    assert states(store) == {1: State.AVAILABLE}
    with store.lease(ModelSpec("digits", label="canary")) as version:
        assert version.number == 1
    assert sum("digits cannot be read: Stale file handle" in message for message in caplog.messages) == 1

    failing.clear()
    shutil.rmtree(own_exports / "digits")
    store.poll()
    assert states(store) == {1: State.END}


def test_a_failed_version_is_tried_again_when_its_folder_is_removed_and_created_again(own_exports, exports):
    store = ModelStore(own_exports)
    broken = own_exports / "digits" / "2"
    broken.mkdir()
    for _ in range(2):
        store.poll()
        assert states(store) == {1: State.AVAILABLE, 2: State.END}
    broken.rmdir()
    store.poll()
    add(exports, own_exports, 2, 2)
    store.poll()
    assert states(store) == {1: State.AVAILABLE, 2: State.AVAILABLE}


def test_a_model_that_is_added_later_is_served(own_exports, exports, images):
    with running_server(own_exports, 0, 0, interval=QUICK) as server:
        shutil.copytree(exports / "digits", own_exports / ".building")
        (own_exports / ".building").rename(own_exports / "more")
        wait_for(lambda: State.AVAILABLE in states(server.store, ModelSpec("more")).values())


def test_other_names_are_ignored(own_exports, exports):
    (own_exports / "digits" / "lenet.tflite").touch()
    (own_exports / "models.config").touch()
    (own_exports / "empty").mkdir()
    shutil.copytree(exports / "digits" / "2", own_exports / "digits" / ".0123abcd.export")
    store = ModelStore(own_exports)
    store.poll()
    assert states(store) == {1: State.AVAILABLE}


def test_a_running_request_keeps_its_version_loaded(own_exports, exports, images):
    store = ModelStore(own_exports)
    store.poll()
    with store.lease(ModelSpec("digits", 1)) as version:
        for number in (2, 3):
            add(exports, own_exports, 2, number)
        store.poll()
        assert states(store)[1] is State.UNLOADING
        assert version.signatures["uint8"].run({"images": images})["class_id"].shape == (12,)
        with pytest.raises(ServingError, match=r"Specific\(digits, 1\)"), store.lease(ModelSpec("digits", 1)):
            pass
    assert states(store)[1] is State.END
    assert not version.signatures


def test_a_stopping_server_answers_the_requests_under_way(own_exports, images):
    with running_server(own_exports, 0, 0) as server, Users(server, images, count=4) as users:
        wait_for(lambda: len(users.answers) > 20)
        users.stop.set()  # each thread has one more request under way at most
    assert {status for status, _ in users.answers} == {200}
