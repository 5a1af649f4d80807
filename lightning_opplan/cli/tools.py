"""The subcommands that need neither a model nor data."""

from collections.abc import Mapping
from typing import Final

from jsonargparse import ArgumentParser, Namespace
from rich import box
from rich.table import Table

from lightning_opplan.cli.completion import COMPLETION
from lightning_opplan.cli.light_tools import LIGHT_TOOLS
from lightning_opplan.cli.result_tables import TABLE
from lightning_opplan.cli.tool import ProgramTool, Tool
from lightning_opplan.messages import suggestion
from lightning_opplan.models import list_models
from lightning_opplan.models.counting import network_cost
from lightning_opplan.reporting import say, standard_console

__all__ = ["TOOLS"]


def _add_networks(parser: ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="Shell pattern of the names.")
    parser.add_argument("--clip_length", type=int, default=16, help="Frames of a clip.")
    parser.add_argument("--crop_size", type=int, default=224, help="Height and width of a clip in px.")
    parser.add_argument("--num_classes", type=int, default=400, help="Classes.")
    parser.add_argument("--in_channels", type=int, default=3, help="Channels: 3 for RGB, 2 for optical flow.")
    parser.add_argument("--views", type=int, default=30, help="Views of a video in a test: clips times crops.")


def _networks(values: Namespace) -> None:
    names = list_models(values.pattern)
    if not names:
        raise ValueError(
            f"`pattern` must match a network, got {values.pattern!r}. {suggestion(values.pattern, list_models())}"
        )
    clip = f"{values.clip_length} × {values.crop_size}²"
    table = Table("network", title=f"{values.num_classes} classes, clips of {clip}", box=box.SIMPLE_HEAD)
    for column in ("parameters", "GMACs", f"GMACs × {values.views} views"):
        table.add_column(column, justify="right")
    for name in names:
        try:
            cost = network_cost(
                name,
                num_classes=values.num_classes,
                clip_length=values.clip_length,
                crop_size=values.crop_size,
                in_channels=values.in_channels,
            )
        except ValueError as error:
            if len(names) == 1:
                raise
            table.add_row(name, *["–"] * 3)
            say(f"{name}: {error}")
            continue
        table.add_row(name, f"{cost.num_parameters:,}", f"{cost.gmacs:.2f}", f"{cost.gmacs * values.views:,.0f}")
    standard_console().print(table)


TOOLS: Final[Mapping[str, Tool | ProgramTool]] = {
    **LIGHT_TOOLS,
    "table": TABLE,
    "networks": Tool("List networks with their parameters and operations.", _add_networks, _networks),
    "completion": COMPLETION,
}
"""The subcommands by name."""
