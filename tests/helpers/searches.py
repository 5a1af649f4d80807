"""Graphs, outcomes, and searches whose edges are worth what a function says."""

from lightning_opplan.planning.graph import Axis, Edge, TransitionGraph
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.search import Search


def lattice(lengths=3, rates=3, *, reversible=True, branches=("cs", "us"), **options):
    return TransitionGraph.lattice(
        branches={name: {"data.sampling": name} for name in branches} or None,
        axes=[
            Axis("clip", [{"data.clip_length": 16 * 2**i} for i in range(lengths)], reversible=reversible),
            Axis("rate", [{"model.learning_rate": 0.04 / 10**i} for i in range(rates)]),
        ],
        **options,
    )


def outcome(edge, value, epochs=3, **further):
    return EdgeOutcome(edge=Edge(*edge), value=value, knee_epoch=epochs, epochs_run=epochs + 2, **further)


def solve(graph, value_of, **options):
    """Run a search whose edges are worth what a function of the whole route to them says."""
    search, order = Search(graph, **options), []
    while (work := search.ask()) is not None:
        parent = search.parent(work.edge)
        route = () if parent is None else way_to(search, parent)
        search.tell(outcome(work.edge, value_of((*route, work.edge))))
        order.append(work.edge)
    return search, order


def way_to(search, edge):
    """The edges up to a finished one."""
    parent = search.parent(edge)
    return (edge,) if parent is None else (*way_to(search, parent), edge)
