"""What TensorBoard reads about the test images."""

import io

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups, metadata

from lenet_keras.errors import InvalidArgument
from lenet_keras.tensorboard.report import write_test_report

NAMES = ["top", "trouser", "bag"]
LABELS = np.array([0, 1, 2, 2])


def write(run_dir, *, loss=0.5, labels=LABELS, right=3, history=(), **settings):
    """Report on four images, of which the first `right` are classified correctly."""
    predicted = np.where(np.arange(len(LABELS)) < right, LABELS, (LABELS + 1) % 3)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_test_report(
        run_dir,
        settings=settings or {"reg": "none", "learning_rate": 1e-4, "batch_size": 64, "early_stopping": False},
        images=np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28, 1),
        labels=labels,
        probabilities=np.where(np.eye(3)[predicted], 0.8, 0.1).astype(np.float32),
        history=history,
        class_names=NAMES,
        loss=loss,
        step=49,
    )


def rows_of_hparams_tab(logdir):
    """Ask the plugin's own backend for the rows of its table."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    context = backend_context.Context(TBContext(data_provider=provider, multiplexer=multiplexer))
    statuses = [api_pb2.STATUS_SUCCESS]  # a session whose end was not written is not listed
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=statuses, start_index=0, slice_size=100, aggregation_type=api_pb2.AGGREGATION_AVG
    )
    return list(list_session_groups.Handler(RequestContext(), context, "", request).run().session_groups)


def test_loss_and_accuracy(tmp_path, series):
    write(tmp_path, loss=0.5, right=3)
    assert series(tmp_path / "test", "test/loss") == [(49, 0.5)]
    assert series(tmp_path / "test", "test/accuracy") == [(49, 0.75)]


def test_recorded_epochs_are_drawn_as_curves(tmp_path, series):
    rows = [{"test_loss": 0.75, "test_accuracy": 0.5}, {"test_loss": 0.5, "test_accuracy": 0.75}]
    write(tmp_path, history=rows)
    assert series(tmp_path / "test", "epoch/accuracy") == [(0, 0.5), (1, 0.75)]
    assert series(tmp_path / "test", "epoch/loss") == [(0, 0.75), (1, 0.5)]


@pytest.mark.parametrize("tag", ["test/confusion matrix", "test/most confident mistakes"])
def test_images_can_be_read(tmp_path, read, series, tag):
    write(tmp_path)
    ((step, (width, height, png)),) = series(tmp_path / "test", tag)
    assert step == 49
    image = Image.open(io.BytesIO(png))
    assert image.size == (int(width), int(height))
    assert len(np.unique(image)) > 10  # something is drawn
    plugin = read(tmp_path / "test").SummaryMetadata(tag).plugin_data.plugin_name
    assert plugin == "images"


def test_settings_are_stored_with_their_types(tmp_path, read):
    write(tmp_path, reg="dropout", learning_rate=1e-3, batch_size=64, early_stopping=True)
    content = read(tmp_path / "test").SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    settings = metadata.parse_session_start_info_plugin_data(content).hparams
    assert settings["reg"].string_value == "dropout"
    assert settings["learning_rate"].number_value == 1e-3
    assert settings["batch_size"].number_value == 64
    assert settings["early_stopping"].bool_value is True


def test_a_setting_that_is_not_set_is_shown_as_auto_or_off(sample_run, read):
    content = read(sample_run / "test").SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    settings = metadata.parse_session_start_info_plugin_data(content).hparams
    shown = {name: settings[name].string_value for name in ("devices", "early_stopping", "checkpoint_steps")}
    assert shown == {"devices": "auto", "early_stopping": "off", "checkpoint_steps": "off"}
    assert all(value.WhichOneof("kind") != "null_value" for value in settings.values())


def test_each_run_is_a_row_of_the_hparams_tab_with_its_metrics(tmp_path):
    write(tmp_path / "none" / "0", loss=0.5, right=3, reg="none")
    write(tmp_path / "dropout" / "0", loss=0.25, right=4, reg="dropout")
    # The same settings and the same end of the path do not make it the same run.
    write(tmp_path / "again" / "none" / "0", loss=0.75, right=2, reg="none")
    rows = rows_of_hparams_tab(tmp_path)
    assert [len(row.sessions) for row in rows] == [1, 1, 1]
    shown = [
        (row.hparams["reg"].string_value, *sorted((value.name.tag, value.value) for value in row.metric_values))
        for row in rows
    ]
    assert sorted(shown) == [
        ("dropout", ("test/accuracy", 1.0), ("test/loss", 0.25)),
        ("none", ("test/accuracy", 0.5), ("test/loss", 0.75)),
        ("none", ("test/accuracy", 0.75), ("test/loss", 0.5)),
    ]


def test_writing_again_replaces_the_report(tmp_path, series):
    write(tmp_path, loss=0.5, right=3, reg="none")
    first = {path.name for path in (tmp_path / "test").iterdir()}
    for _ in range(2):
        write(tmp_path, loss=0.25, right=4, reg="dropout")
    assert series(tmp_path / "test", "test/loss") == [(49, 0.25)]
    assert len(series(tmp_path / "test", "test/confusion matrix")) == 1
    (row,) = rows_of_hparams_tab(tmp_path)
    assert row.hparams["reg"].string_value == "dropout"
    (left,) = (tmp_path / "test").iterdir()
    assert left.name not in first


def test_invalid_arrays_are_rejected_and_leave_nothing(tmp_path):
    with pytest.raises(InvalidArgument, match=r"Received: 4 images, 3 labels"):
        write(tmp_path, labels=LABELS[:3])
    with pytest.raises(InvalidArgument, match="Received: 0 to 3"):
        write(tmp_path, labels=LABELS + np.array([0, 0, 0, 1]))
    with pytest.raises(TypeError, match="early_stopping"):
        write(tmp_path, early_stopping=None)
    assert not list(tmp_path.iterdir())
