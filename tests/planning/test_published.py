"""Published paths: an oracle of the extended graph, and files that people follow by name."""

import pytest

from lightning_opplan import Axis, OptimizationPath, TransitionGraph
from lightning_opplan.paths import list_paths

LENGTHS, RATES = (16, 32, 64), (0.04, 0.004, 0.0004)


def graph(num_lengths=3, *, factor=1.0, reversible=True):
    return TransitionGraph.lattice(
        branches={name: {"data.sampling": name} for name in ("consecutive", "uniform")},
        axes=[
            Axis("clip", [{"data.clip_length": length} for length in LENGTHS[:num_lengths]], reversible=reversible),
            Axis("rate", [{"model.learning_rate": factor * rate} for rate in RATES]),
        ],
        starts=["1-1", "2-1"],
    )


def lengths_of(name):
    return 2 if name.startswith("something") else 3


EPOCHS = {
    "kinetics400": 220, "activitynet": 259, "something_v1": 123, "something_v2": 102, "hmdb51": 58,
    "activitynet_from_kinetics400": 129, "hmdb51_from_kinetics400": 169,
}  # fmt: skip


@pytest.mark.parametrize("name", list_paths())
def test_published_path_is_one_of_the_extended_graph_with_its_settings(name):
    plan = graph(lengths_of(name))
    path = OptimizationPath.load(name, graph=plan)
    path.check(plan)
    assert path.total_epochs == EPOCHS[name]
    assert path.steps[-1].setting["model.learning_rate"] == 0.0004


def test_all_are_there():
    assert list_paths() == sorted(EPOCHS)


def test_unknown_name_gets_the_closest():
    with pytest.raises(FileNotFoundError, match="Did you mean 'kinetics400'"):
        OptimizationPath.load("kinetics40", graph=graph())


def test_file_of_the_same_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hmdb51").write_text("steps: [{state: a, epochs: 1, set: {}}]")
    assert OptimizationPath.load("hmdb51").steps[0].state == "a"


def test_path_is_transferred_by_state():
    path = OptimizationPath.load("hmdb51", graph=graph())
    other = graph(factor=0.5)
    assert path.differences(graph()) == []
    assert path.differences(other)[0] == (
        "step 1 (uniform/1-1): model.learning_rate is 0.04 in the path, 0.02 in the graph"
    )
    moved = path.transferred(other)
    assert [step.epochs for step in moved.steps] == [step.epochs for step in path.steps]
    assert moved.differences(other) == []


def test_path_of_three_lengths_does_not_fit_two():
    path = OptimizationPath.load("hmdb51", graph=graph())
    with pytest.raises(ValueError, match="must be a state of the graph, got 'uniform/3-1'"):
        path.transferred(graph(2))
