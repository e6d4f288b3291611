"""How a process is set up, and the record of what it runs on, which never stops the work."""

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("is_program", [True, False])
def test_only_a_program_of_ours_leaves_out_what_keras_can_do_without(is_program):
    program = f"""
import sys
from lenet_keras import runtime
if {is_program}:
    runtime.settle_keras()
runtime.load_tensorflow()
print(sorted({{"keras", "matplotlib", "pandas"}} & set(sys.modules)))
import matplotlib, pandas
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.strip() == str(["keras"] if is_program else ["keras", "matplotlib", "pandas"])


def test_stderr_may_be_closed_or_missing(tmp_path):
    program = """
import os, sys
from lenet_keras import runtime
sys.stderr = None
with runtime.muted_stderr():
    os.write(2, b"a message")
with open(sys.argv[1], "w") as file:
    os.write(2, b"a message")
    file.write("a file")
"""
    line = 'exec "$@" <&- >&- 2>&-'
    subprocess.run(["sh", "-c", line, "sh", sys.executable, "-c", program, tmp_path / "file"], check=True)
    assert (tmp_path / "file").read_text() == "a file"


def test_versions_name_what_results_depend_on():
    versions = runtime.versions()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["tensorflow"].startswith("2.")
    assert "not installed" not in versions.values()


def test_the_command_can_be_typed_again(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/lenet-keras", "train", "--run-dir", "my runs/1"])
    assert runtime.command() == "lenet-keras train --run-dir 'my runs/1'"


def test_damaged_metadata_of_a_package_is_recorded_as_unknown(monkeypatch):
    def version(package):
        if package == "numpy":
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return None if package == "keras" else "1.0"

    monkeypatch.setattr(metadata, "version", version)
    found = runtime.versions()
    assert (found["numpy"], found["keras"], found["tensorflow"]) == ("unknown", "unknown", "1.0")


def test_a_machine_that_tells_nothing_about_itself_is_recorded_all_the_same(monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "sched_getaffinity", refused)
    monkeypatch.setattr(Path, "read_text", refused)
    monkeypatch.setattr(sys, "argv", [])
    assert runtime.cores() == os.cpu_count()
    assert runtime.processor().endswith(f" {os.cpu_count()} cores")
    assert runtime.command() == "''"


def commit_of(package):
    """The commit that a copy of the package, in the folder `package`, would record."""
    spec = importlib.util.spec_from_file_location("copied_runtime", package / "runtime.py")
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    return copied.git_commit()


def copy_package(root, project="lenet-keras"):
    """Copy what git_commit looks at to `root`, with a pyproject.toml of `project`; return the package's folder."""
    package = root / "lenet_keras"
    package.mkdir(parents=True)
    shutil.copy(runtime.__file__, package)
    (root / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
    return package


def commit(root):
    """Commit everything in `root`, the root of a repository; return the commit."""
    git = ["git", "-C", str(root), "-c", "user.name=N", "-c", "user.email=e@localhost"]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=m"]):
        subprocess.run([*git, *arguments], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_of_the_projects_own_checkout_is_recorded_whatever_git_is_told(tmp_path, monkeypatch):
    package, other = copy_package(tmp_path / "own"), copy_package(tmp_path / "other")
    (other / "more.py").touch()
    own, _ = commit(package.parent), commit(other.parent)
    assert commit_of(package) == own
    monkeypatch.setenv("GIT_DIR", str(other.parent / ".git"))  # as in a hook of the other repository
    monkeypatch.setenv("GIT_WORK_TREE", str(other.parent))
    assert commit_of(package) == own
    assert commit_of(copy_package(tmp_path / "installed")) is None
    (package / "__init__.py").touch()  # not tracked, so not a change
    (package.parent / "pyproject.toml").write_text('[project]\nname = "lenet-keras"\nversion = "0"\n')
    assert commit_of(package) == f"{own}-dirty"


def test_a_copy_installed_within_the_projects_own_checkout_has_no_commit(tmp_path):
    commit(copy_package(tmp_path).parent)
    assert commit_of(copy_package(tmp_path / ".venv" / "lib" / "site-packages")) is None


@pytest.mark.parametrize(
    ("place", "project", "is_committed"),
    [
        (".venv/lib/site-packages", "lenet-keras", False),  # installed within somebody's repository
        ("third_party/lenet", "lenet-keras", True),  # copied into it whole
        (".", "thesis", True),  # only the package copied, beside their own project
        (".", "lenet-keras", False),  # unpacked in a repository of something else
    ],
)
def test_the_commit_of_another_repository_is_not_recorded(tmp_path, place, project, is_committed):
    (tmp_path / "thesis.tex").touch()
    if is_committed:
        package = copy_package(tmp_path / place, project)
        commit(tmp_path)
    else:
        commit(tmp_path)
        package = copy_package(tmp_path / place, project)
    assert commit_of(package) is None


@pytest.mark.parametrize("git", [None, "#!/bin/sh\nexit 128\n", "#!/bin/sh\nexec sleep 60\n", "neither fish nor fowl"])
def test_without_a_git_that_answers_no_commit_is_recorded(tmp_path, monkeypatch, git):
    if git is not None:
        (tmp_path / "git").write_text(git)
        (tmp_path / "git").chmod(0o755)
    if git is None or "sleep" not in git:  # the script needs the path that it finds `sleep` on
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(runtime, "_GIT_TIMEOUT", 0.2)
    assert runtime.git_commit() is None
