"""The configuration files are messages that TensorFlow Serving parses."""

import os
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from lenet_keras.errors import InvalidArgument
from lenet_keras.serving.config import GENERATED, check_export, write_configs, write_server_configs
from lenet_keras.serving.handover import Served


def read(path):
    return text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())


@pytest.fixture
def export_dir(tmp_path):
    for version in ("a/1", "a/9", "a/10", "b/3", "empty", ".export/4"):
        (tmp_path / version).mkdir(parents=True)
    (tmp_path / "README.md").touch()
    return tmp_path


def test_every_model_is_served_with_its_two_newest_versions(export_dir):
    write_server_configs(export_dir)
    models = {model.name: model for model in read(export_dir / "models.config").model_config_list.config}
    assert sorted(models) == ["a", "b"]
    assert models["a"].base_path == "/models/a"
    assert models["a"].model_platform == "tensorflow"
    assert list(models["a"].model_version_policy.specific.versions) == [9, 10]
    assert list(models["b"].model_version_policy.specific.versions) == [3]


def test_a_server_that_nobody_supervises_gets_no_label_that_it_could_refuse(export_dir):
    write_server_configs(export_dir)
    assert not any(model.version_labels for model in read(export_dir / "models.config").model_config_list.config)


def test_files_can_be_written_elsewhere_and_name_other_paths_and_labels(export_dir, tmp_path):
    target = tmp_path / "configs"
    target.mkdir()
    write_configs({"a": Served(frozenset({9, 10}), {"stable": 9, "canary": 10})}, "/srv/my models", target)
    model = read(target / "models.config").model_config_list.config[0]
    assert model.base_path == "/srv/my models/a"
    assert list(model.model_version_policy.specific.versions) == [9, 10]
    assert dict(model.version_labels) == {"stable": 9, "canary": 10}
    assert sorted(path.name for path in target.iterdir()) == ["batching.config", "models.config", "monitoring.config"]
    assert not (export_dir / "models.config").exists()


def test_files_that_are_right_already_are_not_written_again(export_dir):
    write_server_configs(export_dir)
    before = {path: path.stat().st_ino for path in export_dir.glob("*.config")}
    write_server_configs(export_dir)
    assert {path: path.stat().st_ino for path in export_dir.glob("*.config")} == before
    (export_dir / "b" / "4").mkdir()
    write_server_configs(export_dir)
    changed = [path.name for path, inode in before.items() if path.stat().st_ino != inode]
    assert changed == ["models.config"]


def test_metrics_are_at_the_documented_path(export_dir):
    write_server_configs(export_dir)
    assert "/monitoring/prometheus/metrics" in (export_dir / "monitoring.config").read_text()
    assert "max_batch_size { value: 256 }" in (export_dir / "batching.config").read_text()


def test_a_file_that_no_export_wrote_is_never_replaced(export_dir):
    write_server_configs(export_dir)
    write_server_configs(export_dir)  # its own are
    for name in ("models.config", "batching.config", "monitoring.config"):
        path = export_dir / name
        own = path.read_bytes()
        outside = export_dir / "outside"
        outside.write_bytes(own)
        for create in (
            lambda path: path.write_text("# my own\nmodel_config_list {}\n"),
            lambda path: path.write_text(f"# my own\n# {GENERATED}\n"),
            Path.touch,
            Path.mkdir,
            os.mkfifo,
            lambda path, outside=outside: path.symlink_to(outside),
            lambda path: path.symlink_to("nowhere"),
        ):
            path.unlink(missing_ok=True)
            create(path)
            before = path.lstat()
            for call in (write_server_configs, lambda folder: check_export(folder, "a")):
                with pytest.raises(InvalidArgument, match=f"^{path} was not written by lenet-keras, .*: move it away"):
                    call(export_dir)
            assert path.lstat() == before
            path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(own)


def test_a_card_and_a_model_folder_that_no_export_wrote_are_refused(export_dir):
    check_export(export_dir, "a")
    (export_dir / "a" / "README.md").write_text("# My models\n")
    (export_dir / "c").touch()
    for name, path in (("a", "a/README.md"), ("c", "c")):
        with pytest.raises(
            InvalidArgument, match=f"^{export_dir}/{path} .*: move it away, or export to another folder"
        ):
            check_export(export_dir, name)


@pytest.mark.parametrize("name", ["a[b", "a]", "a*", "a?b", "a[0]/b", "a\\b"])
def test_a_path_that_tensorflow_cannot_load_from_is_refused(tmp_path, monkeypatch, name):
    for path in (tmp_path / name, Path(name), tmp_path / name / "below"):
        with pytest.raises(InvalidArgument, match=r"^TensorFlow cannot load a SavedModel from .* because of the "):
            check_export(path, "a")
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / name)
    check_export(Path("exported_models"), "a")  # TensorFlow sees no more of the path than this


def test_other_unusual_paths_will_do(tmp_path):
    for name in ("a{b,c}", "a b", "Ångström", "a\nb", "#%$&'\"!^()", "~a", "-"):
        check_export(tmp_path / name, "a")
    with pytest.raises(InvalidArgument, match="not UTF-8"):
        check_export(tmp_path / os.fsdecode(b"\xff"), "a")
    with pytest.raises(InvalidArgument, match="is a URL"):
        check_export(Path("gs://bucket"), "a")
