"""The rules of the loop, with a runner that trains nothing."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lightning_opplan.planning.graph import START, Edge, TransitionGraph
from lightning_opplan.planning.outcome import Work
from lightning_opplan.planning.progress import EdgeProgress
from lightning_opplan.planning.search import Search
from lightning_opplan.tuner.executors.processes import WorkerDiedError
from lightning_opplan.tuner.loop import EdgeError, SearchLoop
from tests.helpers.searches import lattice, outcome

CHAIN = TransitionGraph({"a": {}, "b": {}, "c": {}}, [(START, "a"), ("a", "b"), ("b", "c")])
A, B, C = CHAIN.edges


class Future:
    """A future that is done once it has been looked at some times."""

    def __init__(self, result, weights, looks=0):
        self._result, self._weights, self._looks = result, weights, looks

    def done(self):
        self._looks -= 1
        return self._looks < 0

    def result(self):
        if isinstance(self._result, Exception):
            raise self._result
        if not self._result.is_paused:
            self._weights[self._result.edge] = self._result.sha256
        return self._result


class World:
    """A runner with its folders, its journal and its display, in memory."""

    def __init__(self, results=None, reached=()):
        self.results = {edge: list(rows) for edge, rows in (results or {}).items()}
        self.reached = iter(reached)
        self.weights, self.started, self.written, self.said, self.ended, self.forgotten = {}, [], [], [], [], []

    def run(self, work, looks=0):
        self.started.append(work.edge)
        queued = self.results.get(work.edge)
        result = queued.pop(0) if queued else outcome(work.edge, 0.5, weights="w", sha256="first")
        return Future(result, self.weights, looks)

    def has_weights(self, known):
        return known.edge in self.weights

    def drop_weights(self, edges):
        for edge in edges:
            self.weights.pop(edge, None)

    def __getitem__(self, edge):
        """The folder of an edge."""
        return SimpleNamespace(
            forget=lambda: self.forgotten.append(edge), progress=self.come, log=f"{edge.child}/worker.log"
        )

    def come(self):
        epoch = next(self.reached, None)
        return None if epoch is None else EdgeProgress(edge=A, epoch=epoch, value=0.1)

    def progress(self, edge, shown):
        pass

    def append(self, known):
        self.written.append((known.edge, "pause" if known.is_paused else "edge"))

    def append_weights(self, known):
        self.written.append((known.edge, "weights"))

    def start(self, edge):
        pass

    def end(self, known):
        self.ended.append(known)

    def renew(self):
        pass

    def say(self, sentence):
        self.said.append(sentence)

    def loop(self, search, run=None, **options):
        return SearchLoop(search, run or self.run, folders=self, journal=self, display=self, report=self, **options)


def test_search_of_a_thousand_edges_ends_within_two_seconds():
    search, world = Search(lattice(lengths=14, rates=14)), World()
    assert len(search.edges) > 1000
    started = time.process_time()
    world.loop(search).to_the_end()
    assert search.is_complete
    assert sorted(world.started) == sorted(search.edges)
    assert set(world.weights) == set(search.winners.values())
    assert time.process_time() - started < 2


@pytest.mark.parametrize("num_workers", [1, 3, 8])
def test_outcomes_are_recorded_before_the_search_is_told_and_everybody_is_told_once(num_workers):
    search, world, told = Search(lattice(lengths=2, rates=2)), World(), []

    class Strict(World):
        def append(self, known):
            assert known.edge not in search.outcomes
            super().append(known)

    world = Strict()
    running = []

    def run(work):
        running.append(len(world.started) - len(world.ended))
        return world.run(work, looks=len(world.started) % 3)

    loop = world.loop(search, run, num_workers=num_workers, on_edge_end=lambda edge, known: told.append((edge, known)))
    loop.to_the_end()
    assert [edge for edge, _ in world.written] == [edge for edge, _ in told] == [known.edge for known in world.ended]
    assert dict(told) == dict(search.outcomes)
    assert max(running) == {1: 0, 3: 2, 8: 5}[num_workers]


def test_pieces_of_work_pause_and_go_on():
    class InPieces(Search):
        def ask(self, running=()):
            work = super().ask(running)
            done = 0 if work is None or work.edge not in self.paused else self.paused[work.edge].epochs_run
            return work and replace(work, until=None if done == 8 else done + 4)

    def run(work):
        world.started.append(work)
        epochs = work.until or 11
        found = replace(outcome(work.edge, 0.5, weights="w"), epochs_run=epochs, is_paused=work.until is not None)
        return Future(found, world.weights)

    world, search, told = World(), InPieces(CHAIN), []
    world.loop(search, run, on_edge_end=lambda edge, known: told.append(edge)).to_the_end()
    assert world.started == [Work(edge=edge, until=until) for edge in (A, B, C) for until in (4, 8, None)]
    assert world.written == [(edge, kind) for edge in (A, B, C) for kind in ("pause", "pause", "edge")]
    assert told == [A, B, C]
    assert not search.paused


def test_budget_starts_nothing_further_and_counts_devices_and_pauses():
    search = Search(CHAIN)
    world = World({A: [outcome(A, 0.5, weights="w", seconds=10.0, devices=4)]})
    world.loop(search, max_device_seconds=40).to_the_end()
    assert world.started == [A]
    world.loop(search, max_device_seconds=41).to_the_end()
    assert world.started == [A, B, C]
    paused = Search(CHAIN, outcomes=[outcome(A, 0.5, seconds=50.0, is_paused=True)])
    world.loop(paused, max_device_seconds=50).to_the_end()
    assert world.started == [A, B, C]


def test_dead_worker_is_started_again_and_given_up_at_last():
    died = WorkerDiedError("It was killed.")
    world = World({A: [died, died]})
    world.loop(Search(CHAIN), max_restarts=2).to_the_end()
    assert world.started == [A, A, A, B, C]
    assert world.said == [
        "start → a: It was killed. It is started again (1 of 2).",
        "start → a: It was killed. It is started again (2 of 2).",
    ]
    with pytest.raises(EdgeError, match="start → a: It was killed. This was try 3; see a/worker.log."):
        World({A: [died] * 3}).loop(Search(CHAIN), max_restarts=2).to_the_end()


def test_worker_that_comes_further_each_time_is_not_given_up():
    world = World({A: [WorkerDiedError("cut off")] * 5}, reached=[3, 6, 9, 12, 15])
    world.loop(Search(CHAIN), max_restarts=1).to_the_end()
    assert world.started == [A] * 6 + [B, C]


def test_error_of_an_edge_ends_the_search():
    for error, options in [(EdgeError("a: no"), {"max_restarts": 3}), (ZeroDivisionError("here"), {})]:
        world = World({B: [error]})
        with pytest.raises(type(error), match=str(error)):
            world.loop(Search(CHAIN), **options).to_the_end()
        assert world.written == [(A, "edge")]


def test_lost_weights_are_trained_again_from_the_nearest_that_are_there():
    search, world = Search(CHAIN, outcomes=[outcome(edge, 0.5, weights="w", sha256="old") for edge in (A, B)]), World()
    with pytest.warns(UserWarning, match="are damaged or gone"):
        world.loop(search).to_the_end()
    assert world.started == [A, B, C]
    assert world.forgotten == [A, B]
    assert world.written == [(A, "weights"), (B, "weights"), (C, "edge")]
    assert {edge: known.sha256 for edge, known in search.outcomes.items()} == {A: "first", B: "first", C: "first"}


def test_lost_weights_of_the_result_are_trained_again():
    search, world = Search(CHAIN), World()
    world.loop(search).to_the_end()
    del world.weights[C]
    with pytest.warns(UserWarning, match="The weights of b → c are damaged or gone"):
        world.loop(search).to_the_end()
    assert world.started == [A, B, C, C]


def test_edges_do_not_wait_for_weights_that_they_do_not_need():
    """While lost weights are trained again, an edge of the other branch runs; the one that needs them does not."""
    graph = TransitionGraph({"a": {}, "b": {}, "x": {}}, [(START, "a"), ("a", "b"), (START, "x")])
    world = World()
    search = Search(graph, outcomes=[outcome((START, "a"), 0.5, weights="w")])
    with pytest.warns(UserWarning, match="are damaged or gone"):
        world.loop(search, lambda work: world.run(work, looks=2), num_workers=2).to_the_end()
    assert world.started == [Edge(START, "a"), Edge(START, "x"), Edge("a", "b")]


def test_edge_that_diverges_when_trained_again_ends_the_search():
    world = World({A: [outcome(A, None)]})
    with (
        pytest.warns(UserWarning, match="are damaged or gone"),
        pytest.raises(EdgeError, match="trained again for its lost weights, it diverged"),
    ):
        world.loop(Search(CHAIN, outcomes=[outcome(A, 0.5, weights="w")])).to_the_end()


def test_weights_that_have_lost_are_dropped():
    graph = TransitionGraph({"a": {}, "b": {}, "c": {}}, [(START, "a"), (START, "b"), ("a", "c"), ("b", "c")])
    world = World({Edge("a", "c"): [outcome(("a", "c"), 0.9, weights="w")]})
    search = Search(graph)
    world.loop(search).to_the_end()
    assert set(world.weights) == {Edge(START, "a"), Edge(START, "b"), Edge("a", "c")}
