"""The configuration files are messages that TensorFlow Serving parses."""

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from lenet_keras.serving.config import write_server_configs


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
    assert dict(models["a"].version_labels) == {"stable": 9, "canary": 10}


def test_the_only_version_is_stable_and_canary(export_dir):
    write_server_configs(export_dir)
    only = read(export_dir / "models.config").model_config_list.config[1]
    assert list(only.model_version_policy.specific.versions) == [3]
    assert dict(only.version_labels) == {"stable": 3, "canary": 3}


def test_files_can_be_written_elsewhere_and_name_other_paths(export_dir, tmp_path):
    target = tmp_path / "configs"
    target.mkdir()
    write_server_configs(export_dir, root="/srv/my models", target=target)
    assert read(target / "models.config").model_config_list.config[0].base_path == "/srv/my models/a"
    assert sorted(path.name for path in target.iterdir()) == ["batching.config", "models.config", "monitoring.config"]
    assert not (export_dir / "models.config").exists()


def test_metrics_are_at_the_documented_path(export_dir):
    write_server_configs(export_dir)
    assert "/monitoring/prometheus/metrics" in (export_dir / "monitoring.config").read_text()
    assert "max_batch_size { value: 256 }" in (export_dir / "batching.config").read_text()
