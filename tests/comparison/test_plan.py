import pytest

from lenet_keras.comparison.plan import Plan, plan_of, read_plan
from lenet_keras.config import TrainConfig
from lenet_keras.errors import InvalidArgument, NotARunFolder, SettingsDiffer
from lenet_keras.runs import RunFolder

FOUR = ["none", "dropout", "batch_norm", "weight_decay"]


def test_variants_share_settings_and_seeds(tmp_path):
    runs = plan_of(["none", "dropout"], [3, 4], {"epochs": 7}).runs(tmp_path)

    assert [(run.variant, run.config.seed, run.config.epochs) for run in runs] == [
        ("none", 3, 7),
        ("dropout", 3, 7),
        ("none", 4, 7),
        ("dropout", 4, 7),
    ]
    assert runs[-1].run_dir == tmp_path / "dropout" / "4"
    assert all(run.config.record_test for run in runs)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "comparison.toml"
        path.write_text(text)
        return path

    return write


def test_a_file_says_what_differs_by_variant(file):
    plan = read_plan(
        file("""
            seeds = [5, 6]
            [settings]
            epochs = 9
            pooling = "average"
            [variants.none]
            [variants."strong decay"]
            reg = "weight_decay"
            weight_decay = 0.01
            epochs = 8
        """),
        {"pooling": "max"},
    )

    assert plan.seeds == (5, 6)
    assert list(plan.variants) == ["none", "strong decay"]
    assert plan.variants["none"] == TrainConfig(epochs=9, record_test=True)
    assert plan.variants["strong decay"] == TrainConfig(
        reg="weight_decay", weight_decay=0.01, epochs=8, record_test=True
    )


def test_a_file_may_leave_everything_out(file):
    plan = read_plan(file(""), {})

    assert (list(plan.variants), plan.seeds) == (FOUR, (0, 1, 2, 3, 4))


def test_seeds_may_be_counted(file):
    assert read_plan(file("seeds = 2"), {}).seeds == (0, 1)
    assert read_plan(file("seeds = 2"), {}, seeds=[7]).seeds == (7,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = ", "is not valid TOML"),
        ("seed = [1]", "Received: 'seed'"),
        ("seeds = 0", "seeds must be 1 to"),
        ("seeds = [1, 1]", "seeds must differ"),
        ("seeds = []", "at least one seed"),
        ("seeds = [true]", "seeds must be an integer"),
        ("seeds = 'many'", "seeds must be a list of integers"),
        ("settings = 3", "settings must be a table"),
        ("variants = {}", "at least one variant"),
        ("[variants]\nnone = 1", "variants.none must be a table"),
        ("[variants.fancy]", "reg must be one of"),
        ("[variants.none]\nepoch = 3", r"variants\.none: unknown setting 'epoch'\. Did you mean 'epochs'\?"),
        ("[variants.none]\nseed = 3", "seeds are the same for all variants"),
        ("[variants.none]\nepochs = 0", r"variants\.none: epochs must be 1 or more"),
        ("[variants.'../up']\nreg = 'none'", "the name of a variant"),
        ("[variants.none]\n[variants.m]\nreg = 'none'\ndataset = 'mnist'", "all variants need the same dataset"),
    ],
)
def test_a_mistake_in_the_file_is_named(file, text, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        read_plan(file(text), {})

    assert "comparison.toml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidArgument, match=r"none\.toml cannot be read: No such file"):
        read_plan(tmp_path / "none.toml", {})


def test_a_regularisation_is_compared_once():
    with pytest.raises(InvalidArgument, match="must differ from each other"):
        plan_of(["dropout+weight_decay", "weight_decay+dropout"], [0], {})


@pytest.fixture
def planned(tmp_path):
    return Plan({"none": TrainConfig(epochs=3)}, seeds=(0,)).runs(tmp_path)[0]


def test_a_run_with_the_same_settings_is_used_wherever_it_was_trained(planned):
    folder = RunFolder(planned.run_dir)
    planned.run_dir.mkdir(parents=True)
    folder.write_config(TrainConfig(epochs=3, strategy="mirrored", histograms=True, weight_decay=0.5), {})

    assert not planned.is_finished()

    folder.metrics_json.write_text("{}")
    assert planned.is_finished()


def test_a_run_with_other_settings_is_refused(planned):
    planned.run_dir.mkdir(parents=True)
    RunFolder(planned.run_dir).write_config(TrainConfig(epochs=4), {})

    with pytest.raises(SettingsDiffer, match=r"epochs: 4, now 3"):
        planned.is_finished()


def test_something_else_in_the_place_of_a_run_is_refused(planned):
    planned.run_dir.mkdir(parents=True)
    (planned.run_dir / "thesis.tex").touch()

    with pytest.raises(NotARunFolder):
        planned.is_finished()
