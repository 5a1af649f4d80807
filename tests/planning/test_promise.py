import math

import numpy as np
import pytest

from lightning_opplan.planning.graph import TransitionGraph
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.promise import promise_of, winners_curse
from lightning_opplan.planning.search import Search


@pytest.mark.parametrize(
    ("values", "errors"),
    [([0.0], [1.0]), ([0.0, 0.0, 0.0], [1, 1, 1]), ([0.9, 0.88, 0.5], [0.02, 0.03, 0.02]), ([1.0, 0.0], [0.5, 2.0])],
    ids=["alone", "three alike", "close", "noisy rival"],
)
def test_the_winner_is_too_good_by_as_much_as_when_drawn(values, errors):
    draws = np.random.default_rng(0).normal(values, errors, size=(400_000, len(values)))
    best = draws.argmax(1)
    simulated = float((draws[np.arange(len(best)), best] - np.asarray(values)[best]).mean())
    assert winners_curse(values, errors) == pytest.approx(simulated, abs=4 * max(errors) / math.sqrt(400_000) + 1e-4)


def search(values, mode="max", **facts):
    graph = TransitionGraph(
        {"a": {}, "b": {}, "c": {}}, [("start", "a"), ("start", "b"), ("a", "c"), ("b", "c")], finals={"c": "c"}
    )
    outcomes = [
        EdgeOutcome(edge=edge, value=value, knee_epoch=1, epochs_run=1, curve=((1, value),), **facts)
        for edge, value in zip(graph.edges, values, strict=True)
    ]
    return Search(graph, mode=mode, outcomes=outcomes)


def test_a_promise_loses_what_chance_added():
    found = promise_of(search([0.7, 0.7, 0.8, 0.8], num_validation=100))
    error = math.sqrt(0.8 * 0.2 / 100)
    assert found.value == 0.8
    # Half of the validation set's variance is shared: two edges compete, those from the start hardly do.
    assert found.expected == pytest.approx(0.8 - error * math.sqrt(0.5) * 0.5642, abs=0.004)
    assert found.error == pytest.approx(error)
    assert "0.8000 (expected on new data: 0.7" in str(found)


def test_of_a_loss_the_fits_are_all_that_is_known():
    found = promise_of(search([3.0, 3.0, 2.0, 2.0], mode="min", standard_error=0.1, num_validation=100))
    assert found.expected == pytest.approx(2.0 + 0.1 * 0.5642, abs=1e-4)
    assert found.error == pytest.approx(0.1)


def test_without_a_value_there_is_no_promise():
    assert promise_of(search([None] * 4)) is None
