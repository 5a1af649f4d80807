"""Validation curves as other programs leave them: CSV, JSON lines and the logs of TensorBoard."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from lightning_opplan.messages import suggestion
from lightning_opplan.planning.curves import Mode, sounds_lower
from lightning_opplan.planning.knee import Point

__all__ = ["Curve", "read_curves"]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A validation curve.

    Attributes:
        name: What it is called.
        points: Epoch and value of its validations; ``None`` where a value is not finite.
        mode: Whether a higher or a lower value is better.
    """

    name: str
    points: tuple[Point, ...]
    mode: Mode


def read_curves(files: Iterable[str], *, metric: str | None = None, mode: Mode | None = None) -> list[Curve]:
    """Read all curves of some files.

    - ``.csv``: a row per validation and a column per metric, as Lightning's `CSVLogger` writes them; epochs in a
      column ``epoch`` count from 0, as Lightning's do. Without one, rows are epochs. Several
      rows of an epoch lie within it; where the epoch falls, another curve begins.
    - ``.jsonl``: a curve per line, with ``values`` from epoch 1 on, and perhaps ``id``, ``metric`` and ``mode``; or
      the journal of a search, with a curve per edge or arm.
    - anything else: the log of TensorBoard, a file or a folder.

    Args:
        files: The files.
        metric: Which column or tag; it may be left out where there is one alone.
        mode: Whether a higher or a lower value is better; by default what the file says, or what the name sounds like.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file has no such metric, or is no such file; the message says where.
        ModuleNotFoundError: If TensorBoard is not installed.
    """
    found: list[Curve] = []
    for name in files:
        file = Path(name)
        if not file.exists():
            raise FileNotFoundError(f"`files` must be files of curves, got {name!r}: no such file.")
        readers = {".csv": _of_csv, ".jsonl": _of_lines}
        found += readers.get(file.suffix, _of_tensorboard)(file, metric, mode)
    return found


def _of_csv(file: Path, metric: str | None, mode: Mode | None) -> Iterator[Curve]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    columns = [name for name in (rows[0] if rows else {}) if name and name not in ("epoch", "step")]
    for name in [_chosen(file, columns, metric)] if metric else _validated(file, columns):
        points: list[tuple[float, float]] = []
        for number, row in enumerate(rows, start=2):
            if not (row.get(name) or "").strip():
                continue  # loggers leave the metrics of other steps out
            epoch = _number(file, number, row["epoch"]) if row.get("epoch") else len(points)
            points.append((epoch, _number(file, number, row[name])))
        runs = _runs(points)
        for number, run in enumerate(runs, start=1):
            part = f", run {number}" if len(runs) > 1 else ""
            yield _curve(f"{file.stem}: {name}{part}", name, run, mode)


def _runs(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The curves of a column by the epochs that are over; several validations of one are spread over it."""
    starts = [i for i, (epoch, _) in enumerate(points) if i == 0 or epoch < points[i - 1][0]]
    found = []
    for start, end in pairwise([*starts, len(points)]):
        run: list[tuple[float, float]] = []
        for epoch, same in groupby(points[start:end], key=lambda point: point[0]):
            values = [value for _, value in same]
            run += [(epoch + place / len(values), value) for place, value in enumerate(values, start=1)]
        found.append(run)
    return found


def _of_lines(file: Path, metric: str | None, mode: Mode | None) -> Iterator[Curve]:
    given: Mapping[str, Any] = {}
    of_search: dict[str, Mapping[str, Any]] = {}
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError as error:
            if given and number == len(lines) and not text.endswith("\n"):
                break  # of a journal, in the middle of whose last line the search was killed
            raise ValueError(f"{file}, line {number}: is not JSON ({error}).") from error
        if not isinstance(content, dict):
            raise ValueError(f"{file}, line {number}: must be a JSON object, got {content!r}.")
        if content.get("type") == "plan":
            given = content
        if "values" in content:
            called = content.get("metric", "")
            if metric is None or metric == called:
                points = list(enumerate(content["values"], start=1))
                name = f"{file}, line {number}"
                yield _curve(
                    str(content.get("id", f"line {number}")), called, points, mode or content.get("mode"), name
                )
        elif content.get("type") in ("edge", "pause"):
            of_search[" → ".join(content["edge"])] = content  # the last word on it
    called = given.get("monitor", "")
    for name, content in of_search.items() if metric in (None, called) else ():
        yield _curve(name, called, [tuple(point) for point in content["curve"]], mode or given.get("mode"))


def _of_tensorboard(file: Path, metric: str | None, mode: Mode | None) -> Iterator[Curve]:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{file} is neither CSV nor JSON lines, and for logs of TensorBoard the package `tensorboard` is missing: "
            "pip install 'lightning-opplan[tensorboard]'.",
            name="tensorboard",
        ) from error
    events = EventAccumulator(str(file), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    if not tags:
        raise ValueError(f"{file} has no curves: it must be CSV, JSON lines, or the log of TensorBoard.")
    for tag in [_chosen(file, tags, metric)] if metric else _validated(file, tags):
        points = list(enumerate((event.value for event in events.Scalars(tag)), start=1))
        yield _curve(f"{file.name}: {tag}", tag, points, mode)


def _validated(file: Path, names: Sequence[str]) -> list[str]:
    """The metrics of validation, by their names; the only one there is, whatever its name."""
    found = [name for name in names if name.lower().startswith(("val", "valid", "test", "eval"))]
    if not found and len(names) == 1:
        return list(names)
    if not found:
        raise ValueError(f"`metric` must be given for {file}, which has {', '.join(map(repr, names)) or 'none'}.")
    return found


def _chosen(file: Path, names: Sequence[str], metric: str) -> str:
    if metric not in names:
        raise ValueError(f"`metric` must be one of {file}, got {metric!r}. {suggestion(metric, names)}")
    return metric


def _number(file: Path, line: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{file}, line {line}: must hold numbers, got {text!r}.") from None


def _curve(
    name: str, metric: str, points: Sequence[tuple[float, Any]], mode: Mode | None, place: str | None = None
) -> Curve:
    try:
        values = [math.nan if value is None else float(value) for _, value in points]
    except (TypeError, ValueError):
        raise ValueError(f"{place or name}: `values` must hold numbers, got others.") from None
    finite = tuple(
        (epoch, value if math.isfinite(value) else None) for (epoch, _), value in zip(points, values, strict=True)
    )
    return Curve(name=name, points=finite, mode=mode or ("min" if sounds_lower(metric) else "max"))
