"""Files whose names hold line breaks, control sequences or bytes that are not text."""

import json
import os

import pytest
from click.testing import CliRunner
from PIL import Image

from lenet_keras_cli.main import main

NAMES = [b"a\nb.png", b"a\r.png", b"\x1b[2J.png", b"\xff\xfe.png", "\u2028.png".encode(),
         b"a[x].png", b"[red]a.png", b":smile:.png"]  # fmt: skip


@pytest.fixture
def predict(sample_run):
    """Return a function that calls `lenet-keras predict`."""
    return lambda *arguments: CliRunner().invoke(main, ["predict", "--model", str(sample_run), *map(str, arguments)])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_not_an_image_is_named_in_one_line(predict, tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b"not an image")
    result = predict(path)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"Error: {tmp_path}/")
    assert last.endswith(".png is not a PNG or JPEG image, or is only the beginning of one")
    assert last.isprintable()


def test_images_of_any_name_are_classified(predict, tmp_path):
    paths = [tmp_path / os.fsdecode(name) for name in NAMES]
    for path in paths:
        Image.new("L", (28, 28)).save(path, "PNG")
    assert [row["image"] for row in json.loads(predict("--json", *paths).stdout)] == [str(path) for path in paths]
    table = predict(*paths)
    assert table.exit_code == 0
    for name in (b"\xff\xfe.png", b"a[x].png", b"[red]a.png", b":smile:.png"):
        assert b"/" + name + b" " in table.stdout_bytes
