from itertools import pairwise

from lightning_opplan.planning.graph import START, Edge
from lightning_opplan.planning.variants import path_variants, variants_graph
from tests.helpers.searches import lattice

PATH = ["cs/1-1", "cs/2-1", "cs/2-2", "cs/3-2", "cs/3-3"]  # published for Kinetics-400


def test_variants_of_a_published_path():
    graph = lattice()
    variants = path_variants(graph, PATH)
    skipped = [v for v in variants if v.kind == "skip"]
    inserted = [v for v in variants if v.kind == "insert"]
    assert variants[0].states == tuple(PATH)
    assert {v.state for v in skipped} == set(PATH[:-1])
    assert all(len(v.states) == len(PATH) - 1 and v.states[-1] == PATH[-1] for v in skipped)
    # By hand, from Figure 1: which states lie on a way of two edges between neighbours of the path.
    assert {(v.state, v.name) for v in inserted} == {
        ("cs/1-2", "insert cs/1-2 after cs/2-1"),
        ("cs/3-1", "insert cs/3-1 after cs/2-1"),
        ("cs/2-3", "insert cs/2-3 after cs/3-2"),
    }
    for variant in inserted:
        assert all(Edge(*pair) in graph.edges for pair in pairwise((START, *variant.states)))
        assert len(variant.states) == len(PATH) + 1


def test_common_beginnings_are_trained_once():
    graph = lattice()
    variants = path_variants(graph, PATH)
    tree = variants_graph(graph.settings, variants)
    prefixes = {v.states[:n] for v in variants for n in range(1, len(v.states) + 1)}
    assert len(tree.states) - 1 == len(tree.edges) == len(prefixes)
    assert list(tree.finals) == [v.name for v in variants]
    assert all(tree.settings[final] == graph.settings["cs/3-3"] for final in tree.finals.values())
