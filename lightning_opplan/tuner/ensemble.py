"""Networks whose scores are averaged: the file that names them, their test, and their predictions."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_opplan.callbacks import ScoreWriter
from lightning_opplan.files import dump_yaml, parse_yaml, write_json, write_text
from lightning_opplan.messages import checked_names
from lightning_opplan.planning.graph import Setting
from lightning_opplan.reporting.tested import results_file
from lightning_opplan.tuner.edges.answers import answering
from lightning_opplan.tuner.edges.checkpoints import load_weights
from lightning_opplan.tuner.edges.hush import hushed
from lightning_opplan.tuner.edges.meter import size_of
from lightning_opplan.tuner.edges.ranks import Ranks
from lightning_opplan.tuner.edges.recipe import Recipe
from lightning_opplan.tuner.edges.training import quiet

__all__ = ["Ensemble", "EnsembleMember", "predict_ensemble", "predict_on", "score_ensemble"]

_FORMAT: Final = 1
_HEADER: Final = """\
# Networks whose scores are averaged with equal weights: `opplan test --config <your configuration> --ensemble <this
# file>`, or `predict`. Weights lie relative to this file; `set` is what the configuration has to say for each.
"""


@dataclass(frozen=True, kw_only=True)
class EnsembleMember:
    """One of the networks.

    Attributes:
        name: Its name.
        weights: File of its weights.
        setting: What the configuration has to say for it.
    """

    name: str
    weights: Path
    setting: Setting


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Networks whose scores are averaged.

    Attributes:
        members: The networks, the best first if one is known to be.
    """

    members: tuple[EnsembleMember, ...]

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> "Ensemble":
        """Read an ensemble from its YAML file.

        Raises:
            FileNotFoundError: If it, or the weights of a member, are not there.
            ValueError: If it is not the file of an ensemble.
        """
        file = Path(file)
        if not file.is_file():
            raise FileNotFoundError(f"`ensemble` must be the file of an ensemble, got {str(file)!r}: no such file.")
        try:
            content = parse_yaml(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(
                f"`ensemble` must be a YAML file, got {str(file)!r}: {' '.join(str(error).split())}."
            ) from error
        entries = content.get("members") if isinstance(content, Mapping) else None
        if not isinstance(entries, Sequence) or not entries or not all(isinstance(each, Mapping) for each in entries):
            raise ValueError(f"{file}: an ensemble must be a mapping with a list of `members`.")
        members = []
        for entry in entries:
            checked_names(f"members of {file}", entry, ("name", "weights", "set"))
            if not {"name", "weights"} <= set(entry):
                raise ValueError(f"{file}: a member must have a `name` and `weights`, got {dict(entry)!r}.")
            weights = file.parent / str(entry["weights"])
            if not weights.is_file():
                raise FileNotFoundError(f"{file}: the weights of {entry['name']!r} are gone: {weights}.")
            members.append(EnsembleMember(name=str(entry["name"]), weights=weights, setting=entry.get("set") or {}))
        names = [member.name for member in members]
        if len(set(names)) < len(names):
            raise ValueError(f"{file}: members must have different names, got {names!r}.")
        return cls(members=tuple(members))

    def save(self, file: Path) -> Path:
        """Write the ensemble as YAML, whole or not at all."""
        members = [
            {
                "name": member.name, "weights": os.path.relpath(member.weights.absolute(), file.parent.absolute()),
                "set": dict(member.setting),
            }
            for member in self.members
        ]  # fmt: skip
        content = {"format": _FORMAT, "members": members}
        write_text(file, _HEADER + dump_yaml(content, width=110))
        return file


def score_ensemble(
    file: str | os.PathLike[str], recipe: Recipe, *, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Test every member of an ensemble, and the mean of their scores.

    What is averaged is what the module returns when it is called: ``test_step`` has to score with ``self(batch)``. All
    members have to see the same samples in the same order.

    Args:
        file: The file of the ensemble. Beside it, ``test.json`` is written.
        recipe: Makes the experiment of each member.
        progress: Is told what happens.

    Returns:
        ``ensemble``, the metrics of the mean; ``members``, those of each by its name; ``num_samples`` of the test.

    Raises:
        ValueError: If the members' scores cannot be averaged.
    """
    file = Path(file)
    ensemble = Ensemble.load(file)
    members: dict[str, Mapping[str, float]] = {}
    with hushed():
        ranks = Ranks(recipe.build_trainer(str(file.parent)))
        mean = _Mean()
        for member in ensemble.members:
            with mean.taking(member.name):
                members[member.name] = _merged(_run(member, recipe, ranks, file.parent, mean, "test"))
            if progress is not None and ranks.is_first:
                progress(f"{member.name}: {_sentence(members[member.name])}")
        fused: Mapping[str, float] = members[ensemble.members[0].name]
        if len(members) > 1:
            with mean.giving():
                fused = _merged(_run(ensemble.members[0], recipe, ranks, file.parent, mean, "test"))
            if progress is not None and ranks.is_first:
                progress(f"all {len(members)}, averaged: {_sentence(fused)}")
        found = {
            "ensemble": dict(fused),
            "members": {name: dict(metrics) for name, metrics in members.items()},
            "num_samples": mean.counter.num_samples,
        }
        ranks.decide(lambda: write_json(results_file(file), found))
    return found


def predict_on(data: Any, split: str) -> None:
    """Let data predict on another split than the test's.

    Args:
        data: Of a module with ``predict_on``, as `VideoDataModule` has.
        split: The split.

    Raises:
        ValueError: If the data have no such method, or refuse the split.
    """
    if split == "test":
        return
    if not hasattr(data, "predict_on"):
        raise ValueError(f"`split` must be left out with data other than a `VideoDataModule`, got {split!r}.")
    data.predict_on(split)


def predict_ensemble(
    file: str | os.PathLike[str],
    recipe: Recipe,
    *,
    scores: str | os.PathLike[str] | None = None,
    split: str = "test",
) -> list[Any]:
    """Predict with the mean of the members' scores.

    Args:
        file: The file of the ensemble.
        recipe: Makes the experiment of each member.
        scores: File for what ``predict_step`` returns, see `Scores`.
        split: Split of a `VideoDataModule` to predict on.

    Returns:
        What ``predict_step`` returns for every batch where the module returns the mean of the members' scores.

    Raises:
        ValueError: If the members' scores cannot be averaged.
    """
    file = Path(file)
    ensemble = Ensemble.load(file)
    with hushed():
        ranks, mean = Ranks(recipe.build_trainer(str(file.parent))), _Mean()
        for member in ensemble.members:
            with mean.taking(member.name):
                _run(member, recipe, ranks, file.parent, mean, "predict", split=split)
        writers = [] if scores is None else [ScoreWriter(scores, f"mean of {len(ensemble.members)}, {file}")]
        with mean.giving():
            predictions: list[Any] = _run(
                ensemble.members[0], recipe, ranks, file.parent, mean, "predict", callbacks=writers, split=split
            )
    return predictions


def _run(
    member: EnsembleMember,
    recipe: Recipe,
    ranks: Ranks,
    folder: Path,
    mean: "_Mean",
    stage: str,
    *,
    callbacks: Sequence[Callback] = (),
    split: str = "test",
) -> Any:
    experiment = recipe.build(member.setting, callbacks=[mean.counter, *callbacks], folder=str(folder))
    predict_on(experiment.data, split)
    ranks.adopt(experiment.trainer)
    quiet(experiment.trainer)
    load_weights(experiment.model, str(member.weights))
    with answering(experiment.model, mean.answer):
        if stage == "test":
            return experiment.trainer.test(experiment.model, experiment.data, verbose=False)
        return experiment.trainer.predict(experiment.model, experiment.data)


class _Counter(Callback):
    """Count the samples of a test, on all devices together."""

    num_samples = 0

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.num_samples = 0

    @override
    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.num_samples += size_of(batch)[0] * trainer.world_size


class _Mean:
    """Sums up what modules return when they are called, call by call, and then returns the mean in their place."""

    def __init__(self) -> None:
        self.counter = _Counter()
        self._sums: list[Tensor] = []
        self._taken = 0
        self._name: str | None = None
        self._calls = 0

    @contextmanager
    def taking(self, name: str) -> Iterator[None]:
        """Within, the scores of a member are added."""
        self._name, self._calls = name, 0
        yield
        if not self._calls:
            raise ValueError(
                f"`test_step` and `predict_step` must score with `self(batch)`, but {name!r} was not called: there is "
                "nothing to average."
            )
        if self._calls != len(self._sums):
            raise ValueError(f"All members must see the same samples, but {name!r} saw another number of batches.")
        self._taken += 1

    @contextmanager
    def giving(self) -> Iterator[None]:
        """Within, the mean is returned."""
        self._name, self._calls = None, 0
        yield

    def answer(self, scores: Any) -> Tensor:
        """Take a member's scores, or return the mean in their place."""
        if not isinstance(scores, Tensor):
            raise ValueError(f"`forward` must return a tensor of scores to be averaged, got {type(scores).__name__}.")
        return self._add(scores) if self._name is not None else self._next().to(scores)

    def _add(self, scores: Tensor) -> Tensor:
        kept = scores.detach().to("cpu", torch.float64)
        if not self._taken:
            self._sums.append(kept)
        elif self._calls < len(self._sums) and self._sums[self._calls].shape == kept.shape:
            self._sums[self._calls] += kept
        else:
            raise ValueError(
                f"All members must see the same samples, but {self._name!r} scored another number of them."
            )
        self._calls += 1
        return scores

    def _next(self) -> Tensor:
        self._calls += 1
        return self._sums[self._calls - 1] / self._taken


def _merged(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of all test loaders."""
    return {name: value for metrics in results for name, value in metrics.items()}


def _sentence(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
