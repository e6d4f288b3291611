"""deploy/ agrees with the package."""

import re
from pathlib import Path

from lenet_keras.serving.config import BATCHING, CONTAINER_ROOT, GRPC_PORT, MODELS, MONITORING, REST_PORT
from lenet_keras.serving.launch import IMAGE

COMPOSE = (Path(__file__).parents[2] / "deploy" / "serving" / "compose.yaml").read_text()


def test_the_compose_file_starts_the_image_with_the_files_of_an_export():
    assert f"image: {IMAGE}\n" in COMPOSE
    flags = dict(re.findall(r"- --(\w+)=(\S+)", COMPOSE))
    assert flags["model_config_file"] == f"{CONTAINER_ROOT}/{MODELS}"
    assert flags["batching_parameters_file"] == f"{CONTAINER_ROOT}/{BATCHING}"
    assert flags["monitoring_config_file"] == f"{CONTAINER_ROOT}/{MONITORING}"
    assert "allow_version_labels_for_unavailable_models" not in flags  # there are no labels


def test_ports_are_open_to_this_machine_alone():
    ports = re.findall(r'- "([\d.:]+)"', COMPOSE)
    assert ports == ["127.0.0.1:8501:8501", "127.0.0.1:8500:8500"]
    assert (REST_PORT, GRPC_PORT) == (8501, 8500)
