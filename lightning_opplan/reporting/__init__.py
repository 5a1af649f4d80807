"""What people look at: terminal tables, figures and the HTML report."""

from lightning_opplan.reporting.comparison import comparison_of, comparison_tables
from lightning_opplan.reporting.costs import cost_tables
from lightning_opplan.reporting.html import write_report
from lightning_opplan.reporting.live import LiveReport
from lightning_opplan.reporting.optuna_export import write_optuna
from lightning_opplan.reporting.plots import plot_comparison, plot_curves, plot_graph, plot_paths
from lightning_opplan.reporting.side_by_side import found_paths, paths_table, write_figures, write_paths
from lightning_opplan.reporting.stream import say, standard_console
from lightning_opplan.reporting.tables import write_tables
from lightning_opplan.reporting.terminal import FollowDisplay, SearchDisplay, edge_table, path_table
from lightning_opplan.reporting.tested import tested_of, tested_table, verdict
from lightning_opplan.reporting.watch import watch

__all__ = [
    "FollowDisplay",
    "LiveReport",
    "SearchDisplay",
    "comparison_of",
    "comparison_tables",
    "cost_tables",
    "edge_table",
    "found_paths",
    "path_table",
    "paths_table",
    "plot_comparison",
    "plot_curves",
    "plot_graph",
    "plot_paths",
    "say",
    "standard_console",
    "tested_of",
    "tested_table",
    "verdict",
    "watch",
    "write_figures",
    "write_optuna",
    "write_paths",
    "write_report",
    "write_tables",
]
