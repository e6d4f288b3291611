import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lenet_keras.export import ExportError, run_signatures, verify

RUN_AND_LIST_KERAS = """
import runpy, sys
sys.argv[1:], program = sys.argv[2:], sys.argv[1]
runpy.run_path(program, run_name="__main__")
print([name for name in sys.modules if name.split(".")[0] in ("keras", "lenet_keras") and sys.modules[name]])
"""


def test_another_process_gets_the_models_answers(published, images, expected, tmp_path):
    results = verify.run_fresh(published, {"serving_default/images": images.astype(np.float32)}, tmp_path)
    np.testing.assert_allclose(results["serving_default/probabilities"], expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(results["serving_default/class_id"], expected.argmax(axis=1))


def test_more_images_than_are_computed_at_a_time_come_back_in_order(published, images, expected, tmp_path):
    many = np.tile(images, (run_signatures.BATCH // len(images) + 1, 1, 1, 1))
    assert len(many) % run_signatures.BATCH
    results = verify.run_fresh(published, {"uint8/images": many}, tmp_path)
    assert len(results["uint8/probabilities"]) == len(many)
    np.testing.assert_allclose(results["uint8/probabilities"][-12:], expected, rtol=0, atol=1e-6)


def test_the_process_that_verifies_has_neither_keras_nor_this_package(published, images, tmp_path):
    np.savez(tmp_path / "in.npz", **{"serving_default/images": images.astype(np.float32)})
    finished = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_KERAS, run_signatures.__file__, str(published), "in.npz", "out.npz"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == "[]\n"
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs["serving_default/probabilities"].shape == (12, 10)


def test_what_lies_beside_the_program_hides_no_package(published, images, tmp_path):
    program = shutil.copy(run_signatures.__file__, tmp_path / "run_signatures.py")
    (tmp_path / "requests.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('the wrong one')")
    np.savez(tmp_path / "in.npz", **{"uint8/images": images})
    command = [sys.executable, program, str(published), tmp_path / "in.npz", tmp_path / "out.npz"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_a_model_that_cannot_run_gives_one_line(tmp_path):
    with pytest.raises(ExportError, match=r"failed when it was tried in a fresh process: .*does not exist") as caught:
        verify.run_fresh(tmp_path / "nothing", {}, tmp_path)
    assert "\n" not in str(caught.value)
