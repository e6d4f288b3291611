"""Exports take over from one another in a TensorFlow Serving that `serve` runs."""

import http.server
import json
import shutil
import threading
import time

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from lenet_keras.serving import launch
from lenet_keras.serving.config import labelled_versions, models_config
from lenet_keras.serving.handover import Served, allowed_labels, next_served

from .server_core import ServerCore

SEQUENCES, LENGTH = 300, 40  # times --repeats


class Supervised:
    """A folder of exports with one model, what supervises it, and the server; each does a step when it is told to."""

    def __init__(self):
        self.exports = [1]
        self.broken = set()
        self.told = Served(frozenset({1}))
        self.core = ServerCore(lambda model, number: number in self.exports and number not in self.broken)
        self.seen = None

    def export(self):
        self.exports.append(self.exports[-1] + 1)

    def export_broken(self):
        self.export()
        self.broken.add(self.exports[-1])

    def remove_oldest(self):
        if self.exports[0] not in {*self.exports[-2:], *self.told.versions, *self.core.available("m")}:
            del self.exports[0]

    def ask(self):
        """The server says what is AVAILABLE; the supervisor learns of it now, and acts later."""
        self.seen = self.core.available("m") if self.core.states else None

    def update(self):
        wanted = {"stable": self.exports[-2:][0], "canary": self.exports[-1]}
        self.told = next_served(wanted, self.told, self.seen)

    def reload(self):
        self.core.reload(models_config({"m": self.told}, "/models"))

    def work(self):
        self.core.work()

    def check(self):
        assert self.core.refused == []
        labels = self.core.labels.get("m", {})
        assert set(labels.values()) <= self.core.available("m")
        good = set(self.exports) - self.broken
        if self.core.available("m"):
            assert self.core.available("m") & good


def test_under_any_sequence_of_exports_no_configuration_is_refused_and_the_newest_version_answers(chance, repeats):
    actions = ["export", "export_broken", "remove_oldest", "ask", "update", "reload", "work"]
    for _ in range(SEQUENCES * repeats):
        one = Supervised()
        for action in chance.choices(actions, [2, 1, 1, 3, 3, 3, 4], k=LENGTH):
            getattr(one, action)()
            one.check()
        one.export()
        newest = one.exports[-1]
        for _ in range(LENGTH):
            for action in ("ask", "update", "reload", "work"):
                getattr(one, action)()
                one.check()
        assert newest in one.core.available("m")
        assert one.core.labels["m"]["canary"] == newest
        before = one.exports[-2]
        if before not in one.broken:
            assert one.core.labels["m"] == {"stable": before, "canary": newest}
            assert one.core.available("m") == {before, newest}


def test_a_label_stays_where_it_is_until_its_version_is_available():
    wanted = {"stable": 2, "canary": 3}
    assert allowed_labels(wanted, {}, ()) == {}
    assert allowed_labels(wanted, {}, {2}) == {"stable": 2}
    assert allowed_labels(wanted, {"stable": 1, "canary": 2}, {1, 2}) == {"stable": 2, "canary": 2}
    assert allowed_labels(wanted, {"stable": 1, "canary": 1}, {1, 3}) == {"stable": 1, "canary": 3}
    assert allowed_labels({}, {"stable": 1}, {1}) == {}


def test_a_server_that_does_not_say_what_is_available_keeps_everything():
    told = Served(frozenset({1, 2}), {"stable": 1, "canary": 2})
    assert next_served({"stable": 2, "canary": 3}, told, None) == Served(frozenset({1, 2, 3}), told.labels)


BINARY = """#!/bin/sh
trap 'exit 0' TERM
while [ ! -e {stop} ]; do sleep 0.05; done
exit 3
"""


def test_the_server_that_serve_runs_follows_the_folder_of_exports(tmp_path, monkeypatch, caplog):
    """Real files, a real process and real HTTP; only TensorFlow Serving itself is the stand-in."""
    monkeypatch.setattr(launch, "_REFRESH", 0.05)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / launch.BINARY).write_text(BINARY.format(stop=tmp_path / "stop"))
    (tmp_path / launch.BINARY).chmod(0o755)
    exports = tmp_path / "exports"
    (exports / "m" / "1").mkdir(parents=True)
    core = ServerCore(lambda model, number: (exports / model / str(number)).is_dir())

    class Status(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            states = core.states.get(self.path.rpartition("/")[2], {})
            reply = [{"version": str(number), "state": state} for number, state in states.items()]
            self.send_response(200 if states else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"model_version_status": reply}).encode())

        def log_message(self, *_):
            pass

    def follows(labels):
        deadline = time.monotonic() + 60
        while core.labels.get("m") != labels or core.available("m") != set(labels.values()):
            assert time.monotonic() < deadline, (core.labels, core.states)
            config = configs / "models.config"
            if config.exists():
                core.reload(text_format.Parse(config.read_text(), model_server_config_pb2.ModelServerConfig()))
                core.work()
            assert core.refused == []
            time.sleep(0.01)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Status) as status:
        server = threading.Thread(target=status.serve_forever, kwargs={"poll_interval": 0.01})
        server.start()
        settings = launch.ServerSettings(exports, status.server_port, 1, "127.0.0.1")
        configs = settings.configs
        codes = []
        runner = threading.Thread(target=lambda: codes.append(launch.run_server(launch.BINARY, settings)))
        runner.start()
        try:
            follows({"stable": 1, "canary": 1})
            for number in (2, 3):
                (exports / "m" / str(number)).mkdir()
                follows(labelled_versions(exports / "m"))
            # For a moment the folder cannot be read; the server goes on, and so does what comes after.
            exports.rename(tmp_path / "away")
            deadline = time.monotonic() + 60
            while not any("goes on with the versions that it has" in line for line in caplog.messages):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            shutil.copytree(tmp_path / "away" / "m" / "3", tmp_path / "away" / "m" / "4")
            (tmp_path / "away").rename(exports)
            follows({"stable": 3, "canary": 4})
        finally:
            (tmp_path / "stop").touch()
            runner.join()
            status.shutdown()
            server.join()
    assert codes == [3]
    assert len(caplog.messages) == 1
