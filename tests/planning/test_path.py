import re

import pytest
import yaml

from lightning_opplan.planning.graph import TransitionGraph
from lightning_opplan.planning.path import OptimizationPath, PathStep
from lightning_opplan.planning.search import Search
from tests.helpers.searches import lattice, outcome, solve

PUBLISHED = {
    "kinetics-400": (3, "cs (1,1)×58 (2,1)×108 (2,2)×26 (3,2)×10 (3,3)×18", 220),
    "activitynet": (3, "cs (2,1)×151 (1,2)×58 (2,2)×1 (3,2)×24 (3,3)×25", 259),
    "something-v1": (2, "us (2,1)×25 (2,2)×6 (1,3)×57 (2,3)×35", 123),
    "something-v2": (2, "us (2,1)×41 (2,2)×8 (1,3)×44 (2,3)×9", 102),
    "hmdb51": (3, "us (1,1)×17 (2,1)×9 (3,1)×19 (3,2)×6 (3,3)×7", 58),
    "activitynet-from-kinetics": (3, "cs (2,1)×73 (1,2)×30 (2,2)×0 (3,2)×7 (3,3)×19", 129),
    "hmdb51-from-kinetics": (3, "us (2,1)×42 (2,2)×42 (1,3)×33 (2,3)×27 (3,3)×25", 169),
}


def parsed(text):
    half, *_ = text.split()
    steps = re.findall(r"\((\d),(\d)\)×(\d+)", text)
    return OptimizationPath(
        steps=tuple(PathStep(state=f"{half}/{i}-{j}", epochs=int(epochs)) for i, j, epochs in steps)
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_paths_fit_the_extended_graph(name):
    lengths, text, epochs = PUBLISHED[name]
    path = parsed(text)
    path.check(lattice(lengths=lengths))
    assert path.total_epochs == epochs


def test_published_path_with_a_shorter_clip_does_not_fit_the_basic_graph():
    with pytest.raises(ValueError, match="must follow an edge of the graph, got us/2-2 → us/1-3"):
        parsed(PUBLISHED["something-v1"][1]).check(lattice(lengths=2, reversible=False))


def test_path_survives_a_round_trip(tmp_path):
    graph = lattice()
    path = solve(graph, lambda route: float(len(route)))[0].path(monitor="val/acc")
    file = path.save(tmp_path / "new" / "path.yaml")
    assert OptimizationPath.load(file) == path
    path.check(graph)
    assert [entry.name for entry in file.parent.iterdir()] == ["path.yaml"]


def test_yaml_can_be_read_by_a_person(tmp_path):
    step = PathStep(state="us/1-1", epochs=12, setting={"data.clip_length": 16}, value=0.81)
    file = OptimizationPath(steps=(step,), monitor="val/accuracy").save(tmp_path / "path.yaml")
    text = file.read_text()
    assert text.startswith("# An optimization path")
    content = yaml.safe_load(text)
    assert content["steps"] == [{"state": "us/1-1", "epochs": 12, "value": 0.81, "set": {"data.clip_length": 16}}]


def test_path_reads_as_a_line():
    assert str(parsed("cs (1,1)×58 (2,1)×0")) == "cs/1-1 × 58 → cs/2-1 × 0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cs (1,1)×5", r"must end in a final state of the graph \('cs/3-3', 'us/3-3'\), got 'cs/1-1'"),
        ("cs (3,1)×5", "Step 1 of the path must follow an edge of the graph, got start → cs/3-1"),
        ("cs (1,1)×5 (3,1)×5", "'cs/1-1' leads to 'cs/2-1', 'cs/1-2'. States trained for 0 epochs are steps too"),
        ("xs (1,1)×5", "Step 1 of the path must be a state of the graph, got 'xs/1-1'. Did you mean"),
    ],
    ids=["end", "start", "edge", "state"],
)
def test_paths_that_do_not_fit_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parsed(text).check(lattice())


def test_path_with_another_setting_is_refused():
    step = PathStep(state="cs/1-1", epochs=1, setting={"data.clip_length": 8})
    with pytest.raises(ValueError, match="got data.clip_length=8 where the graph has 16"):
        OptimizationPath(steps=(step,)).check(lattice())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", "must be a YAML file"),
        ("[1, 2]", "must be a mapping with a list of `steps`"),
        ("steps: []", "`steps` must hold at least one state"),
        ("format: 7\nsteps: [{state: a, epochs: 1}]", "`format` must be 1, got 7"),
        ("mode: up\nsteps: [{state: a, epochs: 1}]", "`mode` must be 'max' or 'min', got 'up'"),
        ("steps: [{epochs: 1}]", "Step 1 must be a mapping with the name of a `state`"),
        ("steps: [{state: a, epochs: -1}]", "`epochs` of step 1 must be a number ≥ 0, got -1"),
        ("steps: [{state: a, epochs: many}]", "`epochs` of step 1 must be a number ≥ 0, got 'many'"),
        ("steps: [{state: a, epocs: 1}]", "must not have the entry 'epocs'. Did you mean 'epochs'?"),
        ("steps: [{state: a, epochs: 1, set: 3}]", "`set` of step 1 must map configuration keys"),
        ("steps: [{state: a, epochs: 1, value: x}]", "`value` of step 1 must be a number"),
    ],
    ids=["yaml", "list", "empty", "format", "mode", "state", "negative", "word", "typo", "set", "value"],
)
def test_unreadable_files_say_where(tmp_path, text, message):
    file = tmp_path / "path.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        OptimizationPath.load(file)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        OptimizationPath.load(tmp_path / "path.yaml")


def test_path_of_a_spent_budget_may_end_before_a_final_state(tmp_path):
    graph = TransitionGraph({"a": {}, "b": {}}, [("start", "a"), ("a", "b")])
    path = Search(graph, outcomes=[outcome(("start", "a"), 0.5)]).path()
    assert not path.is_complete
    loaded = OptimizationPath.load(path.save(tmp_path / "path.yaml"))
    assert loaded == path
    loaded.check(graph)
    with pytest.raises(ValueError, match="must end in a final state"):
        OptimizationPath(steps=path.steps).check(graph)
