"""Search over trainings of your own, without Lightning: logistic regression in NumPy, batch size by learning rate."""

import numpy as np

from lightning_opplan import Axis, EdgeOutcome, KneeRule, Search, TransitionGraph

draw = np.random.default_rng(0)
points = draw.standard_normal((600, 20))
labels = np.sign(points @ draw.standard_normal(20) + draw.standard_normal(600))
train, val = np.arange(400), np.arange(400, 600)


def epoch(weights: np.ndarray, batch_size: int, rate: float, seed: int) -> np.ndarray:
    """One epoch of logistic regression by stochastic gradient descent."""
    for batch in np.split(np.random.default_rng(seed).permutation(train), 400 // batch_size):
        slope = labels[batch] / (1 + np.exp(labels[batch] * (points[batch] @ weights)))
        weights = weights + rate * (slope @ points[batch]) / batch_size
    return weights


def loss(weights: np.ndarray) -> float:
    return float(np.log1p(np.exp(-labels[val] * (points[val] @ weights))).mean())


graph = TransitionGraph.lattice(
    axes=[
        Axis("batch", [{"batch_size": 4}, {"batch_size": 40}], reversible=True),
        Axis("rate", [{"rate": 0.5}, {"rate": 0.02}]),
    ]
)
search = Search(graph, mode="min")
rule = KneeRule(patience=5)
trained = {None: np.zeros(20)}  # the weights that every edge ended with

while (work := search.ask()) is not None:
    history = [trained[search.parent(work.edge)]]
    curve = [(0, loss(history[0]))]
    while not (decision := rule.decide(curve, "min")).stop and len(curve) < 100:
        history.append(epoch(history[-1], **graph.settings[work.edge.child], seed=len(curve)))
        curve.append((len(curve), loss(history[-1])))
    knee = int(decision.knee_epoch)
    trained[work.edge] = history[knee]
    search.tell(EdgeOutcome(edge=work.edge, value=curve[knee][1], knee_epoch=knee, epochs_run=len(curve) - 1))

path = search.path()
print(f"The path: {path}")
print(f"Its loss: {path.value:.4f}")
