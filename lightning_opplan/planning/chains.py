"""Trainings whose stages are given beforehand, as a graph of chains: one chain for each."""

from collections.abc import Sequence
from typing import Protocol

from lightning_opplan.planning.graph import START, Setting, TransitionGraph
from lightning_opplan.planning.schedule import FixedStage

__all__ = ["Chain", "chain_graph"]


class Chain(Protocol):
    """A training in stages."""

    @property
    def name(self) -> str:
        """A name that no other chain has."""

    @property
    def stages(self) -> tuple[tuple[Setting, FixedStage], ...]:
        """Settings and epochs, in order."""


def chain_graph(chains: Sequence[Chain]) -> tuple[TransitionGraph, dict[str, FixedStage]]:
    """Return the chains as a graph, and the stage of each of its states; a chain's end is final."""
    settings: dict[str, Setting] = {}
    edges: list[tuple[str, str]] = []
    stages: dict[str, FixedStage] = {}
    finals: dict[str, str] = {}
    for chain in chains:
        before = START
        for number, (setting, stage) in enumerate(chain.stages, start=1):
            state = f"{chain.name}/{number}"
            settings[state], stages[state] = setting, stage
            edges.append((before, state))
            before = state
        finals[chain.name] = before
    return TransitionGraph(settings, edges, finals=finals), stages
