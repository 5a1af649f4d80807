import pytest

from lightning_opplan.planning.cost import EPOCHS_PER_EDGE
from lightning_opplan.planning.graph import TransitionGraph
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.outlook import outlook_of
from lightning_opplan.planning.progress import EdgeProgress
from lightning_opplan.planning.search import Search
from tests.planning.test_halving import arms

CHAIN = TransitionGraph(
    {name: {"lr": number} for number, name in enumerate("abc")}, [("start", "a"), ("a", "b"), ("b", "c")]
)
A, B, C = CHAIN.edges


def trained(edge, epochs, seconds, devices=1):
    return EdgeOutcome(edge=edge, value=0.5, knee_epoch=1, epochs_run=epochs, seconds=seconds, devices=devices)


def test_edges_to_come_cost_what_the_finished_ones_did():
    # 20 epochs of 10 s; b has done 5 of them; c has yet to begin
    search = Search(CHAIN, outcomes=[trained(A, 20, 200.0)])
    running = {B: EdgeProgress(edge=B, epoch=5, seconds=50.0)}
    found = outlook_of(search, running=running)
    assert found.spent * 3600 == pytest.approx(250)
    assert found.whole * 3600 == pytest.approx(600)
    assert found.seconds_to_go == pytest.approx(350)
    assert found.is_known
    assert found.budget is None


def test_hours_count_for_each_device_and_time_to_go_does_not():
    search = Search(CHAIN, outcomes=[trained(A, 20, 200.0, devices=4)])
    found = outlook_of(search)
    assert found.whole * 3600 == pytest.approx(4 * 600)
    assert found.seconds_to_go == pytest.approx(400)


def test_several_edges_at_a_time_shorten_what_can_run_at_once():
    graph = TransitionGraph({name: {"lr": 1} for name in "abcd"}, [("start", name) for name in "abcd"])
    search = Search(graph, outcomes=[trained(graph.edges[0], 10, 100.0)])
    assert outlook_of(search).seconds_to_go == pytest.approx(300)
    assert outlook_of(search, num_workers=3).seconds_to_go == pytest.approx(100)
    assert outlook_of(search, num_workers=8).seconds_to_go == pytest.approx(100)


def test_before_the_first_edge_has_finished_the_papers_mean_is_assumed():
    running = {A: EdgeProgress(edge=A, epoch=2, seconds=20.0)}
    found = outlook_of(Search(CHAIN), running=running)
    assert not found.is_known
    assert found.whole * 3600 == pytest.approx(3 * EPOCHS_PER_EDGE * 10)
    assert outlook_of(Search(CHAIN), running=running, max_epochs=6).whole * 3600 == pytest.approx(180)
    assert outlook_of(Search(CHAIN), running=running, is_assuming=False).whole is None
    assert outlook_of(Search(CHAIN)).seconds_to_go is None


def test_budget_in_hours_buys_whole_edges_and_ends_the_time_to_go():
    search = Search(CHAIN, outcomes=[trained(A, 20, 200.0)])
    found = outlook_of(search, max_gpu_hours=450 / 3600)
    assert found.num_trainings == 1
    assert found.seconds_to_go == pytest.approx(250)
    assert outlook_of(search, max_gpu_hours=10).num_trainings == 2  # there are no more


def test_finished_search_has_nothing_to_go():
    search = Search(CHAIN, outcomes=[trained(edge, 20, 200.0) for edge in (A, B, C)])
    found = outlook_of(search)
    assert found.seconds_to_go == 0
    assert found.whole == found.spent


def test_arms_share_what_is_left_of_the_budget():
    search = Halving(arms(), budget=60)
    work = search.ask()
    outcome = EdgeOutcome(
        edge=work.edge, value=0.5, knee_epoch=4, epochs_run=4, curve=((4, 0.5),), seconds=40.0, is_paused=True
    )
    search.tell(outcome)
    other = next(edge for edge in search.edges if edge != work.edge)
    running = {other: EdgeProgress(edge=other, epoch=2, seconds=20.0)}
    found = outlook_of(search, running=running, num_workers=2)
    assert (found.unit, found.budget, found.spent, found.whole) == ("epochs", 60, 6, 60)
    assert found.seconds_to_go == pytest.approx(54 * 10 / 2)
    assert found.num_trainings * found.epochs_each == pytest.approx(54)
