from pathlib import Path

import pytest

from lenet_keras.errors import InvalidArgument
from lenet_keras.paths import local_path


def test_a_home_directory_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    assert local_path("~/runs") == local_path(Path("~/runs")) == Path("/home/me/runs")
    assert local_path("~") == Path("/home/me")
    assert local_path("~root/runs") == Path("/root/runs")
    for path in ("runs/~", "a~/b", "/~/b", "C:/b", "a:b", "b/gs:/a"):
        assert str(local_path(path)) == path
    with pytest.raises(InvalidArgument, match=r"^~nobody-here/runs cannot be used: no home directory .* ~nobody-here"):
        local_path("~nobody-here/runs")
    (tmp_path / "~$notes.png").touch()
    assert local_path("~$notes.png") == tmp_path / "~$notes.png"
    for path in ("./~/a", "./gs:/a"):  # these are files of this folder, and stay so when they are passed on
        assert local_path(path) == local_path(local_path(path)) == tmp_path / path


@pytest.mark.parametrize(
    "url", ["gs://b/x", "s3://b", "hdfs:///x", "GS://b", "dbfs:/x", "abfss://c@a.net/x", "http://h/x", Path("gs://b/x")]
)
def test_a_url_is_not_a_path_of_this_machine(url):
    with pytest.raises(InvalidArgument, match=rf"^{url} is a URL, .* mount it\.$"):
        local_path(url)


def test_the_path_in_a_file_url_is_the_remedy():
    with pytest.raises(InvalidArgument, match=r": write /home/me/runs\.$"):
        local_path("file:///home/me/runs")
