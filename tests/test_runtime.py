"""TensorFlow's start: silent, on oneDNN and one thread, unless the user says otherwise."""

import os
import subprocess
import sys

from lenet_keras import runtime

PROGRAM = """
import os
from lenet_keras import runtime
runtime.load_tensorflow(verbose={verbose})
import tensorflow as tf
x = tf.ones((64, 400)) @ tf.ones((400, 120))
print(os.environ["TF_ENABLE_ONEDNN_OPTS"], os.environ["TF_NUM_INTRAOP_THREADS"])
"""
OWN = ("TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS", "TF_CPP_MIN_LOG_LEVEL")


def start(verbose=False, **chosen):
    environment = {name: value for name, value in os.environ.items() if name not in OWN} | chosen
    program = PROGRAM.format(verbose=verbose)
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)


def test_tensorflow_starts_silently_with_our_settings():
    process = start()
    assert process.stderr == ""
    assert process.stdout.split() == ["1", "1"]


def test_verbose_leaves_its_messages_and_the_users_settings_stay():
    process = start(verbose=True, TF_NUM_INTRAOP_THREADS="2")
    assert "oneDNN" in process.stderr
    assert process.stdout.split() == ["1", "2"]


def test_versions_name_what_results_depend_on():
    versions = runtime.versions()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["tensorflow"].startswith("2.")
    assert "not installed" not in versions.values()


def test_the_command_can_be_typed_again(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/lenet-keras", "train", "--run-dir", "my runs/1"])
    assert runtime.command() == "lenet-keras train --run-dir 'my runs/1'"
