"""Versions that come and go under a server that is being asked."""

import http.client
import json
import shutil
import threading
import time

import pytest

from lenet_keras.serving.embedded import serve
from lenet_keras.serving.embedded.models import ModelStore
from lenet_keras.serving.embedded.status import ServingError
from lenet_keras.serving.embedded.versions import State

QUICK = 0.02  # seconds between two looks


def states(store):
    try:
        return {number: state for number, state, _ in store.status("digits")}
    except ServingError:
        return {}


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(QUICK)


def add(exports, own, source, number):
    """A version appears as exports do: built aside, then renamed."""
    aside = own / "digits" / ".0123abcd.export"
    shutil.copytree(exports / "digits" / str(source), aside)
    aside.rename(own / "digits" / str(number))


class Users:
    """Threads that ask again and again, and note each answer."""

    def __init__(self, server, images, count=3):
        self.answers, self.stop = [], threading.Event()
        self._server = server
        self._body = json.dumps({"signature_name": "uint8", "instances": images[:2].tolist()})
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def _ask(self):
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


def test_new_versions_are_taken_up_and_old_ones_released_without_a_failed_request(own_exports, exports, images):
    with serve(own_exports, 0, 0, interval=QUICK) as server, Users(server, images) as users:
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


def test_a_version_that_cannot_be_loaded_is_refused_and_the_old_one_goes_on(own_exports, exports, images):
    notices = []
    with serve(own_exports, 0, 0, interval=QUICK, notify=notices.append) as server, Users(server, images) as users:
        broken = own_exports / "digits" / ".0123abcd.export"
        shutil.copytree(exports / "digits" / "2", broken)
        shutil.rmtree(broken / "variables")
        broken.rename(own_exports / "digits" / "2")
        wait_for(lambda: states(server.store).get(2) is State.END)
        seen = len(users.answers)
        wait_for(lambda: len(users.answers) > seen + 10)
        error = next(error for number, _, error in server.store.status("digits") if number == 2)
        assert "\n" not in str(error)
        assert states(server.store)[1] is State.AVAILABLE
        assert any("version 2 of digits cannot be served" in notice for notice in notices)
    assert {status for status, _ in users.answers} == {200}


def test_the_last_version_that_works_goes_on_whatever_comes_after_it(own_exports):
    store = ModelStore(own_exports)
    store.poll()
    for number in (2, 3):
        (own_exports / "digits" / str(number)).mkdir()
    for _ in range(2):
        store.poll()
        assert states(store) == {1: State.AVAILABLE, 2: State.END, 3: State.END}


def test_a_version_that_failed_is_tried_again_when_its_folder_has_gone_and_come_back(own_exports, exports):
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
    with serve(own_exports, 0, 0, interval=QUICK) as server:
        shutil.copytree(exports / "digits", own_exports / ".building")
        (own_exports / ".building").rename(own_exports / "more")
        wait_for(lambda: _is_available(server.store, "more"))


def _is_available(store, model):
    try:
        return any(state is State.AVAILABLE for _, state, _ in store.status(model))
    except ServingError:
        return False


def test_names_that_are_no_versions_are_passed_over(own_exports, exports):
    (own_exports / "digits" / "lenet.tflite").touch()
    (own_exports / "models.config").touch()
    (own_exports / "empty").mkdir()
    shutil.copytree(exports / "digits" / "2", own_exports / "digits" / ".0123abcd.export")
    store = ModelStore(own_exports)
    store.poll()
    assert states(store) == {1: State.AVAILABLE}


def test_a_request_that_runs_keeps_its_version(own_exports, exports, images):
    store = ModelStore(own_exports)
    store.poll()
    with store.lease("digits", 1) as version:
        for number in (2, 3):
            add(exports, own_exports, 2, number)
        store.poll()
        assert states(store)[1] is State.UNLOADING
        assert version.signatures["uint8"].run({"images": images})["class_id"].shape == (12,)
        with pytest.raises(ServingError, match=r"Specific\(digits, 1\)"), store.lease("digits", 1):
            pass
    assert states(store)[1] is State.END
    assert not version.signatures


def test_a_server_that_ends_answers_what_it_was_asked(own_exports, images):
    with serve(own_exports, 0, 0) as server, Users(server, images, count=4) as users:
        wait_for(lambda: len(users.answers) > 20)
        users.stop.set()  # each thread has one more request under way at most
    assert {status for status, _ in users.answers} == {200}
