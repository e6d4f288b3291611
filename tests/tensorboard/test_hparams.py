"""What the HParams tab shows: asked of the plugin's own backend."""

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

from lenet_keras.config import TrainConfig
from lenet_keras.tensorboard.hparams import write_hparams

SPLIT = {"loss": 0.5, "accuracy": 0.75}
METRICS = {"train": SPLIT, "validation": None, "test": SPLIT}


def write(run_dir, accuracy=0.75, **settings):
    run_dir.mkdir(parents=True, exist_ok=True)
    metrics = {**METRICS, "test": {**SPLIT, "accuracy": accuracy}}
    write_hparams(run_dir, settings=settings or {"reg": "none", "batch_size": 64}, metrics=metrics, step=49)


def hparams_tab(logdir):
    """The columns of settings and of metrics, as people read them, and the rows."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    context = backend_context.Context(TBContext(data_provider=provider, multiplexer=multiplexer))
    found = get_experiment.Handler(
        RequestContext(), context, "", api_pb2.GetExperimentRequest(include_metrics=True)
    ).run()
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_SUCCESS],  # a session whose end was not written is not listed
        start_index=0, slice_size=100, aggregation_type=api_pb2.AGGREGATION_AVG, include_metrics=True,
    )  # fmt: skip
    rows = list_session_groups.Handler(RequestContext(), context, "", request).run().session_groups
    settings = {info.name: info.display_name for info in found.hparam_infos}
    metrics = {info.name.tag: info.display_name for info in found.metric_infos}
    return settings, metrics, list(rows)


def measured(row):
    return {value.name.tag: value.value for value in row.metric_values}


def test_a_run_is_one_session_with_columns_for_people(sample_run):
    settings, metrics, (row,) = hparams_tab(sample_run.parent)
    assert list(metrics.values()) == [
        "validation accuracy", "validation loss", "test accuracy", "test loss", "train accuracy", "train loss",
    ]  # fmt: skip
    assert list(settings.values())[:5] == ["variant", "seed", "learning rate", "batch size", "epochs"]  # those shown
    (session,) = row.sessions
    assert session.name == sample_run.name
    assert row.name.startswith("none/7 (")
    assert measured(row).keys() == metrics.keys()
    shown = {settings[name]: value.string_value or value.number_value for name, value in row.hparams.items()}
    assert (shown["variant"], shown["seed"], shown["learning rate"]) == ("none", 7, 1e-3)
    assert not {"dropout rate", "early stopping"} & shown.keys()  # without effect, or not set


def test_every_setting_of_a_row_has_a_column(tmp_path):
    config = TrainConfig(reg="dropout+batch_norm+weight_decay", early_stopping=3)
    write(tmp_path / "run", **config.with_effect())
    settings, _, (row,) = hparams_tab(tmp_path)
    assert row.hparams.keys() == settings.keys()


def test_each_run_is_a_row_with_its_metrics(tmp_path):
    write(tmp_path / "none" / "0", 0.75, reg="none")
    write(tmp_path / "dropout" / "0", 1.0, reg="dropout")
    # The same settings and the same end of the path do not make it the same run.
    write(tmp_path / "again" / "none" / "0", 0.5, reg="none")
    _, _, rows = hparams_tab(tmp_path)
    assert [len(row.sessions) for row in rows] == [1, 1, 1]
    shown = [(row.hparams["00 reg"].string_value, measured(row)["final/test accuracy"]) for row in rows]
    assert sorted(shown) == [("dropout", 1.0), ("none", 0.5), ("none", 0.75)]
    assert all("final/validation loss" not in measured(row) for row in rows)  # not measured


def test_writing_again_replaces_the_row(tmp_path, series):
    for accuracy in (0.5, 0.75):
        write(tmp_path, accuracy)
    assert series(tmp_path, "final/test accuracy") == [(49, 0.75)]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_setting_of_another_type_is_rejected_and_leaves_nothing(tmp_path):
    with pytest.raises(TypeError, match="reg"):
        write(tmp_path, reg=None)
    assert not list(tmp_path.iterdir())
