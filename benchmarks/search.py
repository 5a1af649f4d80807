"""What a search costs and what it misses, on simulated trainings.

The trainings are a Markov model of learning: a network is three numbers, and every epoch under a setting moves them.

    coarse   c ← c + k_j (C_i − c)     what high rates learn quickly; longer clips allow more of it
    fine     d ← d + q_j (D_j c − d)   what only low rates can learn, and only as far as the coarse part is there
    overfit  o ← o + z_j (1 − o)       what every epoch loses to the training set

    accuracy = A (w c + (1 − w) d) − B o, with noise at every validation

for clip length i and rate j; every problem draws its constants anew, every branch its own. An edge takes the numbers
over from its parent's knee. The speed of learning is one constant, SPEED, calibrated so that the search with the
paper's settings costs on average 1/14 of its grid of 60 trainings, as on Kinetics-400 (Table 5 of the paper: 288 h
beside 4057 h). An epoch costs as many frames as its clips have: 16, 32 and 64.

Regret is the accuracy without noise that the found training ends with, below the best that any path and epochs reach.
The decisions are the package's own code: fits, knees, racing and the dynamic programme.

    python benchmarks/search.py --problems 200                # the table
    python benchmarks/search.py --calibrate                   # the ratio for some speeds
    python benchmarks/search.py --schedule                    # wall time against the bound, for 1 to 8 workers
"""

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lightning_opplan.planning.cost import makespan, schedule_bound
from lightning_opplan.planning.graph import START, Axis, Edge, TransitionGraph
from lightning_opplan.planning.hand_tuned import hand_tuned_trainings
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.options import SearchOptions
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.search import Search

SPEED = 0.85
FRAMES = (16, 32, 64)
MAX_EPOCHS = 400
CLIP = Axis("clip", [{"clip": 0}, {"clip": 1}, {"clip": 2}], reversible=True)
RATE = Axis("rate", [{"learning_rate": 0}, {"learning_rate": 1}, {"learning_rate": 2}])
BRANCHES = {"consecutive": {"branch": 0}, "uniform": {"branch": 1}}
GRAPH = TransitionGraph.lattice(axes=[CLIP, RATE], branches=BRANCHES)
Network = tuple[float, float, float]
UNTRAINED: Network = (0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The constants of one data set and network; arrays of shape (branches, lengths or rates)."""

    coarse_limit: np.ndarray
    coarse_speed: np.ndarray
    fine_limit: np.ndarray
    fine_speed: np.ndarray
    overfit_speed: np.ndarray
    best: float
    coarse_share: float
    overfit_cost: float
    noise: float

    @classmethod
    def draw(cls, seed: int, speed: float = SPEED) -> "Problem":
        draw = np.random.default_rng((seed, 1))

        def around(values: Sequence[float], spread: float) -> np.ndarray:
            return np.asarray(values) * np.exp(spread * draw.standard_normal((2, 3)))

        return cls(
            coarse_limit=np.minimum(np.sort(around((0.82, 0.9, 0.97), 0.03), axis=1), 1.0),
            coarse_speed=np.minimum(speed * around((0.06, 0.012, 0.002), 0.35), 0.5),
            fine_limit=np.minimum(np.sort(around((0.35, 0.75, 0.95), 0.05), axis=1), 1.0),
            fine_speed=np.minimum(speed * around((0.25, 0.2, 0.15), 0.35), 0.6),
            overfit_speed=speed * around((0.0012, 0.002, 0.0025), 0.5),
            best=draw.uniform(0.5, 0.9),
            coarse_share=draw.uniform(0.75, 0.92),
            overfit_cost=draw.uniform(0.15, 0.45),
            noise=draw.uniform(0.002, 0.006),
        )

    def epoch(self, network: Network, branch: int, clip: int, rate: int, factor: float = 1.0) -> Network:
        """One epoch; with `factor` the rate lies below that of `rate`, on a logarithmic scale between the three."""
        coarse, fine, overfit = network

        def at(values: np.ndarray) -> float:
            place = min(rate - math.log10(max(factor, 1e-3)), 2.0)
            low = min(int(place), 1)
            share = place - low
            return float(values[branch, low] ** (1 - share) * values[branch, low + 1] ** share)

        return (
            coarse + at(self.coarse_speed) * (float(self.coarse_limit[branch, clip]) - coarse),
            fine + at(self.fine_speed) * (at(self.fine_limit) * coarse - fine),
            overfit + at(self.overfit_speed) * (1 - overfit),
        )

    def accuracy(self, network: Network) -> float:
        coarse, fine, overfit = network
        learned = self.coarse_share * coarse + (1 - self.coarse_share) * fine
        return max(self.best * learned - self.overfit_cost * overfit * self.best, 0.0)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a method came to: the network's true accuracy, and the frames that it took (in epochs × frames)."""

    accuracy: float
    frames: float


def search(problem: Problem, seed: int, *, options: SearchOptions, racing: bool | None = None) -> Found:
    """The package's search."""
    found = Search(GRAPH, racing=options.racing if racing is None else racing)
    networks: dict[Edge | None, Network] = {None: UNTRAINED}
    frames = 0.0
    while (work := found.ask()) is not None:
        edge = work.edge
        network = networks[found.parent(edge)]
        setting = GRAPH.settings[edge.child]
        rule = options.rule_of(None if edge.parent == START else GRAPH.settings[edge.parent], setting)
        noise = np.random.default_rng((seed, 2, GRAPH.edges.index(edge)))
        rival = found.rival(edge)
        first = 0.0 if edge.parent == START else validated(problem, network, noise)
        points: list[tuple[float, float | None]] = [(0, first)]
        trained = [network]
        while True:
            network = problem.epoch(network, setting["branch"], setting["clip"], setting["learning_rate"])
            trained.append(network)
            points.append((len(points), validated(problem, network, noise)))
            decision = rule.decide(points, rival=rival)
            if decision.stop or len(points) > MAX_EPOCHS:
                break
        knee = int(decision.knee_epoch or 0)
        frames += (len(points) - 1) * FRAMES[setting["clip"]]
        networks[edge] = trained[knee]
        value = points[knee][1] if options.value == "observed" else decision.knee_value
        found.tell(EdgeOutcome(edge=edge, value=value, knee_epoch=knee, epochs_run=len(points) - 1))
    last = found.leaders[str(found.best_so_far)]
    return Found(accuracy=problem.accuracy(networks[last]), frames=frames)


def validated(problem: Problem, network: Network, noise: np.random.Generator) -> float:
    return problem.accuracy(network) + problem.noise * float(noise.standard_normal())


def grid(problem: Problem, seed: int) -> Found:
    """The paper's 60 hand-tuned trainings; the best by one validation at the end."""
    noise = np.random.default_rng((seed, 3))
    best, frames = (-1.0, 0.0), 0.0
    for training in hand_tuned_trainings(axes=[CLIP, RATE], branches=BRANCHES):
        network = UNTRAINED
        for setting, stage in training.stages:
            for epoch in range(stage.epochs):
                factor = stage.rate_factor(epoch + 0.5)
                network = problem.epoch(network, setting["branch"], setting["clip"], setting["learning_rate"], factor)
            frames += stage.epochs * FRAMES[setting["clip"]]
        best = max(best, (validated(problem, network, noise), problem.accuracy(network)))
    return Found(accuracy=best[1], frames=frames)


def random_search(problem: Problem, seed: int, *, budget: float) -> Found:
    """Random paths with random epochs (uniform on a logarithmic scale) until the budget is spent."""
    draw = np.random.default_rng((seed, 4))
    best, frames = (-1.0, 0.0), 0.0
    while frames < budget:
        state, network = START, UNTRAINED
        while children := GRAPH.children(state):
            state = str(draw.choice(children))
            setting = GRAPH.settings[state]
            epochs = round(math.exp(draw.uniform(math.log(3), math.log(120))))
            for _ in range(epochs):
                network = problem.epoch(network, setting["branch"], setting["clip"], setting["learning_rate"])
            frames += epochs * FRAMES[setting["clip"]]
        best = max(best, (validated(problem, network, draw), problem.accuracy(network)))
    return Found(accuracy=best[1], frames=frames)


def best_possible(problem: Problem) -> float:
    """The best accuracy of any path: a search without noise over many epochs for each state, many ways kept."""
    lengths = (0, 1, 2, 3, 5, 8, 12, 18, 26, 38, 54, 76, 108, 150, 210, 300)
    kept: dict[str, list[Network]] = {START: [UNTRAINED]}
    for state in GRAPH.states[1:]:
        setting = GRAPH.settings[state]
        reached = []
        for parent in GRAPH.parents(state):
            for network in kept[parent]:
                now, done = network, 0
                for epochs in lengths:
                    for _ in range(epochs - done):
                        now = problem.epoch(now, setting["branch"], setting["clip"], setting["learning_rate"])
                    done = epochs
                    reached.append(now)
        # Different trade-offs between the three numbers, each by its best.
        scores = [lambda n, w=w: problem.accuracy(n) + w * n[0] * problem.best for w in (0.0, 0.3, 1.0, 3.0)]
        kept[state] = [network for score in scores for network in sorted(reached, key=score)[-3:]]
    return max(problem.accuracy(n) for final in GRAPH.finals.values() for n in kept[final])


Method = Callable[[Problem, int], Found]
PAPER, FAST = SearchOptions(), SearchOptions(preset="fast")
METHODS: dict[str, Method] = {
    "paper": partial(search, options=PAPER),
    "paper, observed values": partial(search, options=SearchOptions(value="observed")),
    "racing alone": partial(search, options=PAPER, racing=True),
    "fast without racing": partial(search, options=FAST, racing=False),
    "fast": partial(search, options=FAST),
    "T = 5": partial(search, options=SearchOptions(knee=KneeRule(patience=5))),
    "T = 20": partial(search, options=SearchOptions(knee=KneeRule(patience=20))),
    "grid": grid,
}


def one_problem(seed: int, speed: float, methods: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Accuracy below the best (in points) and frames of every method."""
    problem = Problem.draw(seed, speed)
    best = best_possible(problem) if "paper" in methods and len(methods) > 2 else 0.0
    found = {name: METHODS[name](problem, seed) for name in methods}
    if len(methods) > 2:
        found["random, the paper's budget"] = random_search(problem, seed, budget=found["paper"].frames)
    return {name: (100 * (best - result.accuracy), result.frames) for name, result in found.items()}


def run_all(problems: int, speed: float, methods: Sequence[str], first: int = 0) -> dict[str, np.ndarray]:
    seeds = range(first, first + problems)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        jobs = pool.map(partial(one_problem, speed=speed, methods=methods), seeds)
        rows = list(track(jobs, total=problems, description="problems", console=Console(stderr=True)))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def interval(values: np.ndarray) -> str:
    """Mean and the 95% interval of a bootstrap over the problems."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def print_table(results: dict[str, np.ndarray]) -> None:
    table = Table(title=f"{len(results['paper'])} problems; mean and 95% interval")
    for name in ("method", "cost, paper = 1", "regret in points", "regret beyond the paper's"):
        table.add_column(name, justify="left" if name == "method" else "right")
    paper_regret, paper_frames = results["paper"].T
    for name, rows in results.items():
        regret, frames = rows.T
        table.add_row(name, interval(frames / paper_frames), interval(regret), interval(regret - paper_regret))
    Console(width=130).print(table)


def print_schedule() -> None:
    """Edges of equal length on graphs of the paper; and the makespan of lengths like those of simulated searches."""
    table = Table(title="Wall time over the bound (longest way, or all edges over workers)")
    for name in ("graph", "lengths", *(f"{workers} workers" for workers in (1, 2, 4, 8))):
        table.add_column(name)
    draw = np.random.default_rng(0)
    for name, reversible in (("basic", False), ("extended", True)):
        axes = [Axis("clip", CLIP.settings, reversible=reversible), RATE]
        graph = TransitionGraph.lattice(axes=axes, branches=BRANCHES)
        for kind in ("equal", "drawn (50 times)"):
            ratios = []
            for workers in (1, 2, 4, 8):
                rows = []
                for _ in range(1 if kind == "equal" else 50):
                    lengths = {e: 1.0 if kind == "equal" else float(draw.lognormal(0, 0.6)) for e in graph.edges}
                    rows.append(
                        (makespan(Search(graph), lengths, workers), schedule_bound(Search(graph), lengths, workers))
                    )
                wall, bound = np.array(rows).T
                ratios.append(f"{wall.mean():.1f} / {bound.mean():.1f} = {(wall / bound).mean():.3f}")
            table.add_row(name, kind, *ratios)
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="Seed of the first problem.")
    parser.add_argument("--speed", type=float, default=SPEED)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--schedule", action="store_true")
    options = parser.parse_args()
    if options.schedule:
        print_schedule()
    elif options.calibrate:
        for speed in (0.5, 0.7, 1.0, 1.4, 2.0):
            results = run_all(options.problems, speed, ["paper", "grid"], options.first)
            ratio = results["grid"][:, 1].mean() / results["paper"][:, 1].mean()
            print(f"speed {speed:g}: the grid costs {ratio:.2f} times as much as the paper's search")
    else:
        print(f"$ {' '.join(sys.argv)}")
        print_table(run_all(options.problems, options.speed, options.methods, options.first))


if __name__ == "__main__":
    main()
