"""Score files: what networks give to videos, to be compared and averaged whatever trained them.

An ``.npz`` with ``ids`` (N names), ``scores`` (N × classes, before softmax), ``labels`` (N whole numbers, -1 where one
is not known) and, if there is something to say, ``source``, a text on network and weights, and ``is_probability``.
"""

import itertools
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_opplan.files import replacing
from lightning_opplan.messages import OpplanError

__all__ = ["Scores", "ScoresError", "best_weights", "fused"]

Array = NDArray[np.float64]


class ScoresError(OpplanError, ValueError):
    """Scores that cannot be read, or do not belong together."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a network gives to some videos.

    Attributes:
        ids: Names of the videos, each once.
        scores: ``(N, classes)``, before softmax; or, of a fusion, probabilities.
        labels: ``(N,)``, -1 where a label is not known.
        source: What network and weights they are of.
        is_probability: Whether the scores are probabilities already.
    """

    ids: tuple[str, ...]
    scores: Array
    labels: NDArray[np.int64]
    source: str = ""
    is_probability: bool = False

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> "Scores":
        """Read a score file.

        Raises:
            FileNotFoundError: If there is none.
            ScoresError: If it is not one.
        """
        if not Path(file).is_file():
            raise FileNotFoundError(f"There is no score file {os.fspath(file)!r}.")
        try:
            with np.load(file, allow_pickle=False) as content:
                found = cls(
                    ids=tuple(map(str, content["ids"])),
                    scores=content["scores"].astype(np.float64),
                    labels=content["labels"].astype(np.int64),
                    source=str(content["source"]) if "source" in content else "",
                    is_probability=bool(content["is_probability"]) if "is_probability" in content else False,
                )
        except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ScoresError(f"{os.fspath(file)}: is not a score file ({' '.join(str(error).split())}).") from error
        found._check(os.fspath(file))
        return found

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Write a score file, whole or not at all."""
        self._check(os.fspath(file))
        with replacing(file) as partial, partial.open("wb") as stream:
            np.savez_compressed(
                stream, ids=np.array(self.ids), scores=self.scores.astype(np.float32), labels=self.labels,
                source=np.array(self.source), is_probability=np.array(self.is_probability),
            )  # fmt: skip
        return Path(file)

    @property
    def probabilities(self) -> Array:
        """Softmax of the scores."""
        if self.is_probability:
            return self.scores
        shifted = np.exp(self.scores - self.scores.max(axis=1, keepdims=True))
        normalised: Array = shifted / shifted.sum(axis=1, keepdims=True)
        return normalised

    def accuracy(self, k: int) -> float | None:
        """Share of the videos with a label whose label is among the k highest scores; ``None`` without any label.

        Of equal scores the class that comes first is the higher one.
        """
        known = self.labels >= 0
        if not known.any():
            return None
        scores, labels = self.scores[known], self.labels[known]
        own = scores[np.arange(len(labels)), labels][:, None]
        earlier = np.arange(scores.shape[1]) < labels[:, None]
        ahead = (scores > own) | ((scores == own) & earlier)
        return float((ahead.sum(axis=1) < k).mean())

    def _check(self, name: str) -> None:
        if self.scores.ndim != 2 or not len(self.ids) == len(self.scores) == len(self.labels):
            raise ScoresError(
                f"{name}: must have as many scores and labels as videos, got {self.scores.shape} and "
                f"{self.labels.shape} for {len(self.ids)}."
            )
        if len(set(self.ids)) < len(self.ids):
            raise ScoresError(f"{name}: must have every video once.")
        if not np.isfinite(self.scores).all():
            raise ScoresError(f"{name}: must have finite scores.")


def fused(members: Sequence[Scores], weights: Sequence[float] | None = None) -> Scores:
    """Average probabilities.

    Args:
        members: Scores of the same videos and classes, in any order.
        weights: Weight of each; by default equal. They are divided by their sum.

    Returns:
        The fusion, in the order of the first.

    Raises:
        ScoresError: If the videos, the classes or the labels are not the same.
        ValueError: If the weights are no weights.
    """
    ordered = _ordered(members)
    given = np.ones(len(members)) if weights is None else np.array(weights, dtype=np.float64)
    if len(given) != len(members) or not (np.isfinite(given).all() and (given >= 0).all() and given.sum() > 0):
        raise ValueError(f"`weights` must be a number ≥ 0 for each of {len(members)} files, got {weights!r}.")
    given = given / given.sum()
    mean = sum(weight * each.probabilities for weight, each in zip(given, ordered, strict=True))
    first = ordered[0]
    labels = np.max([each.labels for each in ordered], axis=0)
    source = " + ".join(f"{weight:.3g} × {each.source}" for weight, each in zip(given, ordered, strict=True))
    return Scores(ids=first.ids, scores=np.asarray(mean), labels=labels, source=source, is_probability=True)


def best_weights(members: Sequence[Scores], *, steps: int = 10) -> tuple[float, ...]:
    """Choose weights by top-1 on validation scores, from a grid; of equals the most even ones.

    Args:
        members: Validation scores, with labels.
        steps: Parts that the sum of 1 is shared out in.

    Raises:
        ScoresError: If they do not belong together, or have no labels.
    """
    if any(each.accuracy(1) is None for each in members):
        raise ScoresError("Weights are chosen on validation scores with labels, got some without.")
    best: tuple[Any, ...] | None = None
    for parts in itertools.product(range(steps + 1), repeat=len(members)):
        if sum(parts) != steps:
            continue
        weights = tuple(part / steps for part in parts)
        key = (-(fused(members, weights).accuracy(1) or 0.0), max(weights) - min(weights), weights)
        best = key if best is None or key < best else best
    assert best is not None
    chosen: tuple[float, ...] = best[-1]
    return chosen


def _ordered(members: Sequence[Scores]) -> list[Scores]:
    """The same scores in the order of the first's videos."""
    if not members:
        raise ScoresError("There must be scores to fuse, got none.")
    first = members[0]
    found = []
    for number, each in enumerate(members, start=1):
        if set(each.ids) != set(first.ids):
            odd = sorted(set(each.ids) ^ set(first.ids))
            raise ScoresError(
                f"All files must have the same videos, but number {number} differs from the first in {len(odd)}, such "
                f"as {odd[0]!r}."
            )
        if each.scores.shape != first.scores.shape:
            raise ScoresError(
                f"All files must have the same classes, but number {number} has {each.scores.shape[1]} and the first "
                f"{first.scores.shape[1]}."
            )
        place = {name: index for index, name in enumerate(each.ids)}
        order = [place[name] for name in first.ids]
        labels = each.labels[order]
        wrong = (labels >= 0) & (first.labels >= 0) & (labels != first.labels)
        if wrong.any():
            name = first.ids[int(np.flatnonzero(wrong)[0])]
            raise ScoresError(f"All files must have the same labels, but number {number} has another one of {name!r}.")
        found.append(
            Scores(ids=first.ids, scores=each.scores[order], labels=labels, source=each.source,
                   is_probability=each.is_probability)
        )  # fmt: skip
    return found
