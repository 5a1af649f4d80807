import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from lightning_opplan import Axis, OptimizationPath, PathSearchTuner, TransitionGraph
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.journal import Journal, JournalError
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.options import SearchOptions
from lightning_opplan.tuner.edges.recipe import FactoryRecipe
from tests.helpers import toy
from tests.helpers.scripted import Points, Scripted, quiet_trainer


def test_search_finds_the_best_path_and_writes_it(searched):
    result = toy.tuner(searched).search()
    graph = toy.graph()
    assert set(result.outcomes) == set(graph.edges)
    result.path.check(graph)
    assert OptimizationPath.load(searched / "path.yaml") == result.path
    last = result.outcomes[Edge(result.path.steps[-2].state, "2-2")]
    assert result.path.value == last.value == max(
        result.outcomes[edge].value for edge in graph.edges if edge.child == "2-2"
    )  # fmt: skip
    assert torch.load(result.weights, weights_only=True)["hyper_parameters"]["lr"] == 0.01
    files = {"edges", "ensemble.yaml", "journal.jsonl", "path.yaml", "report.html", "status.json"}
    assert {entry.name for entry in searched.iterdir()} == files


def test_finished_search_trains_nothing_again(searched, monkeypatch):
    path = OptimizationPath.load(searched / "path.yaml")
    before = (searched / "journal.jsonl").read_bytes()
    monkeypatch.setattr(toy.Classifier, "training_step", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(toy.Classifier, "validation_step", lambda *_: pytest.fail("validated again"))
    assert toy.tuner(searched).search().path == path
    assert (searched / "journal.jsonl").read_bytes() == before


def test_edges_keep_only_what_is_needed(searched):
    """The losing edges into a settled state have no weights any more."""
    winners = Journal.of(searched).read()[1].winners.values()
    for edge in toy.graph().edges:
        (folder,) = searched.glob(f"edges/*_{edge.parent}--{edge.child}")
        weights = {"weights.ckpt"} if edge in winners else set()
        assert {entry.name for entry in folder.iterdir()} == {"outcome.json", "plan.json"} | weights


def test_weights_are_handed_over_and_y0_is_the_parents_value(searched):
    _, search = Journal.of(searched).read()
    for edge, outcome in search.outcomes.items():
        epoch, value = outcome.curve[0]
        assert epoch == 0
        if edge.parent == "start":
            assert value == -1.0
        else:
            parents = [o for e, o in search.outcomes.items() if e.child == edge.parent]
            best = max(parents, key=lambda o: o.value)
            assert value == pytest.approx(dict(best.curve)[best.knee_epoch])


@pytest.mark.slow
def test_seed_decides_and_repeats(tmp_path):
    graph = toy.graph((0.1,))
    one, same, other = (
        toy.tuner(tmp_path / name, seed=seed, graph=graph).search() for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert toy.fingerprint(one, tmp_path / "a", graph) == toy.fingerprint(same, tmp_path / "b", graph)
    assert toy.fingerprint(one, tmp_path / "a", graph) != toy.fingerprint(other, tmp_path / "c", graph)


@pytest.mark.slow
def test_interrupted_edge_goes_on_from_its_last_epoch(tmp_path, searched):
    """Interrupted at every third epoch in turn, the search ends as it does undisturbed, and repeats no epoch."""
    epochs = []

    class Interrupting(toy.Classifier):
        def on_train_epoch_start(self):
            epochs.append(self.trainer.current_epoch)
            if len(epochs) % 4 == 0:
                raise ConnectionError("interrupted")

    whole = toy.tuner(searched).search()
    for _ in range(200):
        try:
            result = toy.tuner(tmp_path / "parts", model=Interrupting).search()
            break
        except ConnectionError:
            epochs.pop()
            epochs.append(-1)
    assert toy.fingerprint(result, tmp_path / "parts") == toy.fingerprint(whole, searched)
    trained = [epoch for epoch in epochs if epoch >= 0]
    assert len(trained) == sum(outcome.epochs_run for outcome in whole.outcomes.values())


def test_min_mode_measures_the_untrained_model(tmp_path):
    class Loss(toy.Classifier):
        def log(self, name, value, **options):
            super().log(name, -value, **options)

    graph = toy.graph((0.1,), (8,))
    result = toy.tuner(tmp_path, model=Loss, mode="min", start_value=None, graph=graph).search()
    first = result.outcomes[Edge("start", "1-1")]
    assert first.curve[0][1] == pytest.approx(0.7, abs=0.3)
    assert first.value < first.curve[0][1]


def test_diverged_edges_lose(tmp_path):
    class Diverging(Scripted):
        def __init__(self, lr=0.1, jump=1.0):
            super().__init__([float("nan")] if jump > 1 else [0.5 + 0.001 * n for n in range(20)], lr=lr)

    axes = [Axis("jump", [{"model.jump": 2.0}, {"model.jump": 1.0}])]
    graph = TransitionGraph.lattice(axes=axes)
    tuner = PathSearchTuner(
        graph, model=Diverging, data=Points, trainer=partial(quiet_factory, tmp_path), monitor="val/acc",
        dirpath=tmp_path / "run", progress=False, start_value=0.0,
    )  # fmt: skip
    result = tuner.search()
    assert result.outcomes[Edge("start", "1")].value == 0.0  # the weights before the first epoch
    assert result.path.steps[-1].state == "2"


def quiet_factory(folder, **options):
    return quiet_trainer(folder, **{"max_epochs": 6, **options})


def test_search_of_nothing_but_nan_says_so(tmp_path):
    graph = TransitionGraph({"a": {"model.lr": 1.0}}, [("start", "a")])
    model = lambda lr: Scripted([float("nan")], lr=lr)  # noqa: E731
    tuner = PathSearchTuner(
        graph, model=model, data=Points, trainer=partial(quiet_factory, tmp_path), monitor="val/acc", mode="min",
        dirpath=tmp_path / "run", progress=False,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="Every training diverged: no final state has a finite 'val/acc'"):
        tuner.search()


def test_metric_that_is_never_logged_is_named(tmp_path):
    with pytest.raises(
        RuntimeError, match="`monitor` must be a metric that validation logs, got 'val/scores'. Did you"
    ):
        toy.tuner(tmp_path, monitor="val/scores").search()


def never(**options):
    pytest.fail("something was built")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"model.learning_rate": 0.1}, "got 'model.learning_rate'. .*'model.lr', 'model.width'"),
        ({"data.batch_sise": 8}, "got 'data.batch_sise'. Did you mean 'data.batch_size'"),
        ({"module.lr": 0.1}, "got 'module.lr'. Did you mean 'model.lr'"),
        ({"trainer.devices": 2}, "`trainer.devices` must be the same for all states"),
        ({"trainer.strategy": "ddp"}, "`trainer.strategy` must be the same for all states"),
        ({"trainer.callbacks": []}, "`trainer.callbacks` must be left to the tuner"),
    ],
    ids=["model", "typo", "target", "devices", "strategy", "callbacks"],
)
def test_unknown_keys_fail_before_the_first_epoch(tmp_path, setting, message):
    graph = TransitionGraph({"a": {}, "b": setting}, [("start", "a"), ("a", "b")])
    with pytest.raises(ValueError, match=message):
        toy.tuner(tmp_path, graph=graph).search()
    assert not (tmp_path / "journal.jsonl").exists()


def test_objects_in_place_of_factories_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`model` must be a function or class that makes a new one for every edge"):
        toy.tuner(tmp_path, model=toy.Classifier())
    with pytest.raises(ValueError, match="`model` and `trainer` must be given, or a `recipe`"):
        toy.tuner(tmp_path, model=None)


@pytest.mark.parametrize(
    "change", [{"seed": 5}, {"knee": {"patience": 4}}, {"monitor": "val/other"}, {"max_epochs": 3}],
    ids=["seed", "knee", "monitor", "trainer"],
)  # fmt: skip
def test_folder_of_another_plan_is_refused(searched, change):
    before = (searched / "journal.jsonl").read_bytes()
    with pytest.raises(JournalError, match="is the journal of another plan"):
        toy.tuner(searched, **change).search()
    assert (searched / "journal.jsonl").read_bytes() == before


@pytest.mark.slow
def test_corrected_plan_takes_the_place_of_one_that_never_finished_an_edge(tmp_path, searched):
    class Failing(toy.Classifier):
        def on_validation_epoch_end(self):
            if self.trainer.current_epoch == 3:
                raise ConnectionError("broken")

    with pytest.raises(ConnectionError):
        toy.tuner(tmp_path, model=Failing, seed=8).search()
    assert list(tmp_path.glob("edges/*/resume/*.ckpt"))
    with pytest.warns(
        UserWarning, match=r"The plan has changed \(.*was 8.*none of its edges had finished: it is begun"
    ):
        result = toy.tuner(tmp_path).search()
    assert list(tmp_path.glob("edges-before-1/*/resume/*.ckpt"))
    assert toy.fingerprint(result, tmp_path) == toy.fingerprint(toy.tuner(searched).search(), searched)


def test_trainer_without_the_callbacks_is_refused(tmp_path):
    def trainer(callbacks, **options):
        return quiet_trainer(tmp_path, **options)

    with pytest.raises(ValueError, match="`trainer` must pass on `callbacks`, got a Trainer without them"):
        toy.tuner(tmp_path, trainer=trainer).search()


def test_dry_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`fast_dev_run` must be off for a plan"):
        toy.tuner(tmp_path, trainer=partial(quiet_factory, tmp_path, fast_dev_run=True)).search()
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 1


def test_training_without_a_batch_is_no_divergence(tmp_path):
    with pytest.raises(RuntimeError, match="The training of start → 1-1 ended without a validation"):
        toy.tuner(
            tmp_path, trainer=partial(quiet_factory, tmp_path, max_epochs=0), start_value=None, mode="min"
        ).search()


@pytest.mark.slow
def test_validation_within_epochs_resumes_as_if_undisturbed(tmp_path):
    count = 0

    class Interrupting(toy.Classifier):
        def on_train_batch_start(self, batch, batch_idx):
            nonlocal count
            count += 1
            if count in (37, 150, 233):
                raise ConnectionError("interrupted")

    trainer = partial(quiet_factory, tmp_path, val_check_interval=0.5)
    whole = toy.tuner(tmp_path / "whole", trainer=trainer).search()
    for _ in range(10):
        try:
            result = toy.tuner(tmp_path / "parts", model=Interrupting, trainer=trainer).search()
            break
        except ConnectionError:
            pass
    assert toy.fingerprint(result, tmp_path / "parts") == toy.fingerprint(whole, tmp_path / "whole")


@pytest.mark.slow
def test_untrained_model_counts_as_nothing_or_as_measured(tmp_path):
    """A metric that is negative has no use for a y₀ of 0."""
    result = toy.tuner(tmp_path, start_value=None).search()
    assert result.outcomes[Edge("start", "1-1")].curve[0][1] == pytest.approx(-0.7, abs=0.3)

    class Shifted(toy.Classifier):
        def log(self, name, value, **options):
            super().log(name, value + 5, **options)

    result = toy.tuner(tmp_path / "shifted", start_value=None, model=Shifted).search()
    assert result.outcomes[Edge("start", "1-1")].curve[0][1] == 0.0


def test_shape_of_the_network_must_stay(tmp_path):
    graph = TransitionGraph({"a": {"model.width": 4}, "b": {"model.width": 6}}, [("start", "a"), ("a", "b")])
    with pytest.raises(ValueError, match="A setting must not change the shape of the network"):
        toy.tuner(tmp_path, graph=graph).search()


def test_spawning_strategies_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="Use `strategy='ddp'`"):
        toy.tuner(tmp_path, devices=2, strategy="ddp_spawn").search()


@pytest.mark.filterwarnings("ignore:.*`tensorboardX` has been removed.*")
def test_callbacks_and_loggers_of_the_factory_are_fresh_for_every_edge(tmp_path):
    seen = []

    def trainer(callbacks, **options):
        return Trainer(accelerator="cpu", max_epochs=2, enable_progress_bar=True, callbacks=callbacks, **options)

    class Recipe(FactoryRecipe):
        def build(self, *args, **options):
            experiment = super().build(*args, **options)
            seen.append((experiment.trainer, experiment.trainer.default_root_dir))
            return experiment

    recipe = Recipe(model=toy.Classifier, data=toy.Quadrants, trainer=trainer)
    toy.tuner(tmp_path, recipe=recipe, model=None, data=None, trainer=None).search()
    edges = [folder for _, folder in seen if "edges" in folder]
    assert len(edges) == len(set(edges)) == len(toy.graph().edges)
    assert len({id(trainer) for trainer, _ in seen}) == len(seen)
    callbacks = [id(each) for trainer, _ in seen for each in trainer.callbacks]
    loggers = [id(each) for trainer, _ in seen for each in trainer.loggers]
    assert len(callbacks) == len(set(callbacks))
    assert len(loggers) == len(set(loggers)) == len(seen)


def test_outcomes_are_in_the_journal_in_full(searched):
    lines = [json.loads(line) for line in (searched / "journal.jsonl").read_text().splitlines()]
    assert len(lines) == 1 + len(toy.graph().edges)
    edge = lines[1]
    assert edge["edge"] == ["start", "1-1"]
    assert edge["curve"][0] == [0, -1.0]
    winner = next(line for line in lines[1:] if (searched / "edges" / folder_of(line) / "weights.ckpt").exists())
    assert winner["weights"] == "weights.ckpt"
    assert len(winner["sha256"]) == 64
    assert edge["standard_error"] > 0
    assert edge["num_samples"] == 160 * edge["epochs_run"]
    assert edge["stopping_reason"].startswith(("val/score peaked at epoch", "Training ended at epoch"))


def folder_of(line):
    parent, child = line["edge"]
    return f"{toy.graph().edges.index((parent, child)):03d}_{parent}--{child}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"knee": {"patince": 3}}, "`knee` must name options it has, got 'patince'. Did you mean 'patience'?"),
        ({"knee": {"patience": -1}}, "`patience` must be a number of epochs ≥ 0, got -1"),
        (
            {"presets": "fast"},
            "`PathSearchTuner` must name options it has, got 'presets'. Did you mean 'preset'?",
        ),
        ({"preset": "quick"}, "`preset` must be one of 'paper', 'fast', got 'quick'"),
        ({"value": "best"}, "`value` must be one of 'fitted', 'observed', got 'best'"),
        ({"beam": 0}, "`beam` must be at least 1, got 0"),
        ({"max_gpu_hours": 0}, "`max_gpu_hours` must be above 0, got 0"),
        ({"mode": "higher"}, "`mode` must be one of 'max', 'min', got 'higher'"),
        ({"executor": "rays"}, "`executor.name` must be one of"),
    ],
    ids=["knee", "knee value", "name", "preset", "value", "beam", "budget", "mode", "executor"],
)
def test_wrong_options_fail_in_the_constructor(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        toy.tuner(tmp_path, **options)


def test_options_can_be_given_by_name_or_as_one_value(tmp_path):
    by_name = toy.tuner(tmp_path, preset="fast", beam=2, knee={"patience": 4}, num_threads=2)
    options = SearchOptions(preset="fast", beam=2, knee=KneeRule(patience=4), num_threads=2, progress=False)
    as_one = toy.tuner(tmp_path, options=options, knee=options.knee, num_threads=2)
    assert by_name.spec.options == replace(as_one.spec.options, start_value=-1.0)
    assert by_name.spec.options.rule.max_risk == 0.3


def test_users_are_told_of_every_edge_that_finishes(tmp_path):
    told = []
    graph = toy.graph((0.1,))
    result = toy.tuner(tmp_path, graph=graph, on_edge_end=lambda *args: told.append(args)).search()
    assert dict(told) == result.outcomes
    assert len(told) == len(graph.edges)
    toy.tuner(tmp_path, graph=graph, on_edge_end=lambda *args: pytest.fail("told again")).search()


@pytest.mark.slow
def test_an_edge_that_stops_before_it_has_learned_is_warned_of(tmp_path):
    """In the paper's search; one that waits does so instead."""
    chance = [0.25, 0.27, 0.24, 0.26, 0.25, 0.23, 0.26, 0.27, 0.24, 0.25] * 6

    class Late(toy.Classifier):
        def validation_step(self, batch, batch_idx):
            self.log("val/score", chance[self.current_epoch], batch_size=len(batch[0]))

    graph = TransitionGraph({"only": {"model.lr": 0.1}}, [("start", "only")])
    options = {"model": Late, "graph": graph, "max_epochs": 60, "start_value": 0.0}
    knee = {"patience": 5, "min_points": 10}
    with pytest.warns(
        UserWarning, match=r"start → only stopped at epoch \d+ although its curve is no better than a const"
    ):
        result = toy.tuner(tmp_path / "paper", knee=knee, **options).search()
    (paper,) = result.outcomes.values()
    waited = toy.tuner(tmp_path / "waits", knee={**knee, "wait": 40}, **options).search()
    assert paper.epochs_run < 40 <= next(iter(waited.outcomes.values())).epochs_run
