"""Results as tables: plain records, pandas, and files for other programs."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from lightning_opplan.files import replacing, write_text
from lightning_opplan.messages import checked_choice
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.planning.rows import EdgeRow, StateRow, edge_rows, state_rows
from lightning_opplan.planning.search import Search

if TYPE_CHECKING:
    import pandas

__all__ = ["TableFormat", "TableName", "data_frame", "records_of", "write_tables"]

TableName = Literal["edges", "states", "curves"]
TableFormat = Literal["csv", "json", "parquet"]

Record = dict[str, Any]

_PANDAS: Final = "Install it with `pip install 'lightning-opplan[pandas]'`."


def records_of(plan: PlanRecord, search: Search | Halving, table: TableName) -> list[Record]:
    """Return a table of a search as records of plain values, all with the same keys.

    Args:
        plan: The plan.
        search: Where its search stands.
        table: Which one. A setting has an entry for each of its keys, ``setting.`` before it.
    """
    checked_choice("table", table, get_args(TableName))
    if table == "curves":
        return [
            {"parent": outcome.edge.parent, "child": outcome.edge.child, "epoch": epoch, plan.monitor: value}
            for outcome in sorted(search.known, key=lambda outcome: search.edges.index(outcome.edge))
            for epoch, value in outcome.curve
        ]
    keys = list(dict.fromkeys(key for setting in search.graph.settings.values() for key in setting))
    rows: Sequence[EdgeRow | StateRow] = (
        edge_rows(search, plan.options.rule.curve) if table == "edges" else state_rows(search)
    )
    return [_record(row, keys) for row in rows]


def data_frame(records: Sequence[Record]) -> "pandas.DataFrame":
    """Return records as a pandas DataFrame.

    Raises:
        ModuleNotFoundError: If pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"A DataFrame needs pandas. {_PANDAS}") from error
    return pandas.DataFrame.from_records(records)


def write_tables(
    dirpath: str | os.PathLike[str], folder: str | os.PathLike[str], kind: TableFormat = "csv"
) -> list[Path]:
    """Write the edges, states and curves of a search as files, one each.

    Args:
        dirpath: The folder of the search.
        folder: Where they go.
        kind: Their format.

    Returns:
        The files.

    Raises:
        FileNotFoundError: If there is no journal in the folder.
        ModuleNotFoundError: If what Parquet needs is not installed.
    """
    checked_choice("format", kind, get_args(TableFormat))
    plan, search = Journal.of(dirpath).read()
    files = []
    for name in get_args(TableName):
        file = Path(folder, f"{name}.{kind}")
        records = records_of(plan, search, name)
        if kind == "parquet":
            _write_parquet(records, file)
        else:
            columns = ["parent", "child", "epoch", plan.monitor] if name == "curves" else []
            write_text(file, _csv(records, columns) if kind == "csv" else _json(records))
        files.append(file)
    return files


def _record(row: EdgeRow | StateRow, keys: Sequence[str]) -> Record:
    """A row without its curve, and with its setting laid flat."""
    content = {name: value for name, value in vars(row).items() if name not in ("setting", "curve")}
    return {**content, **{f"setting.{key}": _plain(row.setting.get(key)) for key in keys}}


def _plain(value: Any) -> Any:
    """A value that fits in a cell: lists and the like as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, default=str)


def _csv(records: Sequence[Record], columns: Sequence[str]) -> str:
    """The records; without any, the names of the columns alone."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(records[0]) if records else columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def _json(records: Sequence[Mapping[str, Any]]) -> str:
    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    content = [{name: finite(value) for name, value in record.items()} for record in records]
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _write_parquet(records: Sequence[Record], file: Path) -> None:
    frame = data_frame(records)
    for name in frame.columns:
        values = [value for value in frame[name] if value is not None]
        # A column has one type: rates that are numbers in one state and names in another become texts.
        if len({type(value) is str for value in values}) > 1:
            frame[name] = [None if value is None else str(value) for value in frame[name]]
    with replacing(file) as partial:
        try:
            frame.to_parquet(partial, index=False)
        except ImportError as error:
            raise ModuleNotFoundError(f"Parquet needs pyarrow. {_PANDAS}") from error
