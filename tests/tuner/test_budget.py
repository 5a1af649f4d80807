"""A search with a budget: arms that are paused, compared, and gone on with."""

import random
from dataclasses import replace

import pytest
import torch

from lightning_opplan import Axis, OptimizationPath, TransitionGraph
from lightning_opplan.planning.graph import START, Edge
from lightning_opplan.planning.journal import Journal, JournalError
from lightning_opplan.planning.options import ExecutorOptions
from lightning_opplan.tuner.edges.store import EdgeFolders
from tests.helpers import budgeted, toy
from tests.helpers.driver import Driver, result_of


@pytest.fixture(scope="session")
def searched_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget") / "run"
    budgeted.tuner(folder).search()
    return folder


def num_lines(file):
    return len(file.read_text().splitlines()) if file.exists() else 0


def read(folder):
    return Journal.of(folder).read()[1]


def test_the_budget_is_spent_on_better_and_better_arms(searched_once):
    search = read(searched_once)
    assert search.is_complete
    assert search.spent == sum(outcome.epochs_run for outcome in search.known) <= 0.4 * 90
    assert len(search.rungs[0].edges) == 4  # nine epochs each, of which eight are the least
    own = search.arms.arms[0]
    assert own.setting == {"data.batch_size": 32, "model.lr": 0.1}  # the configuration's, at the last position
    for rung in search.rungs:
        assert all(search.outcome(edge).epochs_run >= rung.epochs for edge in rung.edges)
    path = OptimizationPath.load(searched_once / "path.yaml")
    assert path.averaging
    assert path == search.path(monitor="val/accuracy")


def test_the_weights_of_the_winner_are_the_averaged_ones_of_its_last_epoch(searched_once):
    result = budgeted.tuner(searched_once).search()
    search = read(searched_once)
    best = search.leaders[search.best_so_far]
    assert result.weights == EdgeFolders(searched_once, search.edges)[best].weights
    model = budgeted.Scorer()
    model.load_state_dict(torch.load(result.weights, weights_only=True)["state_dict"])
    data = budgeted.Points()
    data.setup("fit")
    points, labels = data.val[:]
    with torch.no_grad():
        accuracy = (model.eval()(points).argmax(1) == labels).float().mean().item()
    assert search.outcome(best).curve[-1][1] == pytest.approx(accuracy)


def test_chance_is_the_share_of_the_most_frequent_class(searched_once):
    search = read(searched_once)
    data = budgeted.Points()
    data.setup("fit")
    labels = data.val[:][1]
    assert search.chance == pytest.approx(max(labels.float().mean().item(), 1 - labels.float().mean().item()))
    assert all(outcome.num_validation == 80 for outcome in search.known)


def test_a_finished_search_trains_nothing(searched_once, monkeypatch):
    monkeypatch.setattr(budgeted.Scorer, "training_step", lambda *_: pytest.fail("trained again"))
    before = (searched_once / "journal.jsonl").read_bytes()
    budgeted.tuner(searched_once).search()
    assert (searched_once / "journal.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_larger_budget_trains_the_difference_alone(tmp_path, monkeypatch):
    budgeted.tuner(tmp_path, budget={"epochs": 30, "search_share": 1.0}).search()
    before = {outcome.edge: outcome.epochs_run for outcome in read(tmp_path).known}
    epochs = []
    monkeypatch.setattr(
        budgeted.Scorer, "on_train_epoch_start", lambda self: epochs.append(self.current_epoch), raising=False
    )
    budgeted.tuner(tmp_path, budget={"epochs": 60, "search_share": 1.0}).search()
    after = read(tmp_path)
    assert len(epochs) == after.spent - sum(before.values())
    assert sum(before.values()) < after.spent <= 60
    assert all(after.outcome(edge).epochs_run >= number for edge, number in before.items())


@pytest.mark.slow
def test_an_interrupted_search_ends_as_if_undisturbed(tmp_path, searched_once, monkeypatch):
    generator, whole = random.Random(0), budgeted.Scorer.training_step

    def interrupted(self, batch, batch_idx):
        if generator.random() < 0.03:
            raise ConnectionError("interrupted")
        return whole(self, batch, batch_idx)

    monkeypatch.setattr(budgeted.Scorer, "training_step", interrupted)
    interruptions = 0
    while True:
        try:
            budgeted.tuner(tmp_path).search()
            break
        except ConnectionError:
            interruptions += 1
    assert interruptions > 3
    assert budgeted.fingerprint(tmp_path) == budgeted.fingerprint(searched_once)


def test_lost_weights_of_the_winner_are_trained_again(tmp_path):
    made = budgeted.tuner(tmp_path)
    result = made.search()
    expected = torch.load(result.weights, weights_only=True)["state_dict"]
    result.weights.unlink()
    made.search()
    again = torch.load(result.weights, weights_only=True)["state_dict"]
    assert all(torch.equal(expected[name], again[name]) for name in expected)


@pytest.mark.slow
def test_a_diverged_arm_leaves(tmp_path):
    space = budgeted.space(rates=(1e30, 0.1, 0.01))
    budgeted.tuner(tmp_path, graph=space, budget={"epochs": 60, "search_share": 1.0}).search()
    search = read(tmp_path)
    dead = [outcome for outcome in search.known if "lr=1e+30" in outcome.edge.child]
    assert dead
    assert all(outcome.value is None and not outcome.is_paused for outcome in dead)
    assert search.is_complete
    assert "1e+30" not in search.best_so_far


@pytest.mark.slow
def test_moves_go_on_from_the_best_arm_s_snapshot(tmp_path):
    budgeted.tuner(tmp_path, budget={"epochs": 60, "search_share": 1.0, "arms": 4, "moves": 1}).search()
    search = read(tmp_path)
    (fork,) = [outcome for outcome in search.known if outcome.edge.parent != START]
    folders = EdgeFolders(tmp_path, search.edges)
    parent = Edge(START, fork.edge.parent)
    assert folders[parent].snapshot(fork.since).is_file()
    assert fork.since == search.rungs[-2].epochs
    assert search.outcome(parent).epochs_run > fork.since


def test_frames_and_hours_are_counted_where_they_are_the_budget(tmp_path):
    """Without clips, samples are; an epoch of 160 samples."""
    budgeted.tuner(tmp_path, budget={"clip_frames": 160 * 40, "search_share": 1.0}).search()
    search = read(tmp_path)
    assert search.spent <= 160 * 40
    assert search.spent == 160 * sum(outcome.epochs_run for outcome in search.known)


def test_a_lattice_is_a_space_too(tmp_path):
    graph = toy.graph()
    made = budgeted.tuner(tmp_path, graph=graph)
    assert {arm.setting["data.batch_size"] for arm in made.spec.arms.arms} == {8, 32}
    written = TransitionGraph({"a": {"model.lr": 0.1}}, [("start", "a")])
    with pytest.raises(ValueError, match="`graph` must be made of axes for a search with a `budget`"):
        budgeted.tuner(tmp_path, graph=written)
    with pytest.raises(ValueError, match="`graph` must be a `TransitionGraph` without a `budget`"):
        budgeted.tuner(tmp_path, budget=None)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "`budget` must be a number above 0 of one of 'epochs', 'gpu_hours', 'clip_frames'"),
        ({"epochs": 0}, "must be a number above 0"),
        ({"epochs": 5, "gpu_hours": 1}, "must be a number above 0 of one of"),
        ({"epochs": 5, "search_share": 0}, "`budget.search_share` must be above 0"),
        ({"epochs": 5, "eta": 1}, "`budget.eta` must be at least 2"),
        ({"epochs": 5, "arms": 1}, "`budget.arms` must be at least 2"),
        ({"epochs": 5, "moves": -1}, "`budget.moves` must be at least 0"),
        ({"epoch": 5}, "Did you mean 'epochs'"),
    ],
    ids=["none", "zero", "two", "share", "eta", "arms", "moves", "name"],
)
def test_wrong_budgets_are_refused(tmp_path, budget, message):
    with pytest.raises(ValueError, match=message):
        budgeted.tuner(tmp_path, budget=budget)


def test_another_space_in_the_folder_is_refused(tmp_path, searched_once):
    with pytest.raises(JournalError, match="the journal of another plan"):
        budgeted.tuner(searched_once, graph=budgeted.space(rates=(0.3, 0.2, 0.01))).search()


def test_a_trainer_that_averages_itself_is_refused(tmp_path):
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import EMAWeightAveraging

    def trainer(callbacks, **options):
        return Trainer(callbacks=[EMAWeightAveraging(), *callbacks], accelerator="cpu", logger=False, **options)

    with pytest.raises(ValueError, match="must leave averaging to the search"):
        budgeted.tuner(tmp_path, trainer=trainer).search()


@pytest.mark.slow
def test_an_edge_of_the_paper_s_search_may_average_too(tmp_path):
    result = toy.tuner(tmp_path / "averaged", averaging=True).search()
    plain = toy.tuner(tmp_path / "plain").search()
    first = next(iter(result.outcomes))
    assert result.outcomes[first].curve != plain.outcomes[first].curve
    assert len(result.outcomes) == len(plain.outcomes)


def test_a_state_may_anneal(tmp_path):
    """Its epochs are a share of all, its rate falls to nothing, and no knee is sought."""
    axes = [Axis("rate", [{"model.lr": 0.1, "anneal": None}, {"model.lr": 0.1, "anneal": {"share": 0.25}}])]
    result = toy.tuner(tmp_path, graph=TransitionGraph.lattice(axes=axes)).search()
    first, last = result.path.steps
    assert last.epochs == max(round(first.epochs / 3), 1)
    outcome = next(o for edge, o in result.outcomes.items() if edge.child == "2" and edge.parent == "1")
    assert outcome.value == outcome.curve[-1][1]


@pytest.mark.process
@pytest.mark.timeout(900)
def test_four_workers_find_what_one_finds(tmp_path, searched_once):
    executor = ExecutorOptions(name="processes", num_workers=4)
    budgeted.tuner(tmp_path, executor=executor).search()
    assert budgeted.fingerprint(tmp_path) == budgeted.fingerprint(searched_once)


@pytest.mark.process
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1])
def test_search_and_delivery_survive_random_kills(tmp_path, seed):
    undisturbed = Driver(tmp_path / "whole", "in_process", script="tests.helpers.budgeted").finish()
    generator, folder, kills = random.Random(seed), tmp_path / "run", 0
    journals = ("journal.jsonl", "deliver/journal.jsonl")

    def lines():
        return sum(num_lines(folder / place) for place in journals)

    for _ in range(3):
        awaited = lines() + generator.randint(1, 4)
        driver = Driver(folder, "in_process", script="tests.helpers.budgeted")
        kills += driver.kill_when(lambda awaited=awaited: lines() >= awaited, delay=generator.uniform(0, 0.3))
    assert Driver(folder, "in_process", script="tests.helpers.budgeted").finish() == undisturbed
    assert kills >= 1
    for place in journals:
        assert num_lines(folder / place) == num_lines(tmp_path / "whole" / place)
    assert not [file for file in folder.rglob("*") if file.name.endswith(".tmp")]


@pytest.mark.process
def test_two_ranks_find_what_two_ranks_find_after_a_pause(tmp_path):
    """Statistics of batch normalization differ between ranks; averages of them must not."""
    whole = Driver(tmp_path / "whole", "in_process", devices=2, script="tests.helpers.budgeted").finish()
    folder = tmp_path / "killed"
    driver = Driver(folder, "in_process", devices=2, script="tests.helpers.budgeted")
    assert driver.kill_when(lambda: num_lines(folder / "journal.jsonl") > 2)
    driver.wait_for_others()
    assert Driver(folder, "in_process", devices=2, script="tests.helpers.budgeted").finish() == whole
    assert result_of(folder, 0) == result_of(folder, 1)


def test_replaced_amounts_are_the_same_plan(tmp_path):
    made = budgeted.tuner(tmp_path)
    record = made.spec.record
    more = replace(record, options=replace(record.options, budget=replace(record.options.budget, epochs=500)))
    assert record.fingerprint == more.fingerprint
    journal = Journal.of(tmp_path)
    journal.open(record)
    journal.open(more)
    assert journal.read()[0].options.budget.epochs == 500
