"""The command line: LightningCLI with `plan`, `deliver`, `control`, `follow` and others beside its own."""

import os
import shlex
import sys
from collections.abc import Container, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from inspect import signature
from pathlib import Path
from pydoc import locate
from typing import Any, Final, Literal

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from typing_extensions import override

import lightning_opplan.modules  # noqa: F401 - so that a config can name the classes without their module
from lightning_opplan._lightning import OpenCLI, add_callback
from lightning_opplan.callbacks import ScoreWriter
from lightning_opplan.cli.commands import Commands
from lightning_opplan.cli.folder_tools import show_tests
from lightning_opplan.cli.help import DESCRIPTION, EXAMPLES, USAGE, HelpFormatter
from lightning_opplan.cli.recipe import ConfigRecipe
from lightning_opplan.cli.save_config import SaveConfigOfFit
from lightning_opplan.cli.tool import Tool
from lightning_opplan.cli.tools import TOOLS
from lightning_opplan.data import VideoDataModule
from lightning_opplan.data.cache_command import write_cache
from lightning_opplan.data.flow_command import write_flow
from lightning_opplan.files import local_folder, parse_yaml
from lightning_opplan.planning.graph import TransitionGraph
from lightning_opplan.planning.hand_tuned import hand_tuned_trainings
from lightning_opplan.planning.journal import Journal
from lightning_opplan.planning.options import GraphOptions, PlanOptions
from lightning_opplan.planning.path import OptimizationPath, plain_setting
from lightning_opplan.planning.schedule import Anneal
from lightning_opplan.reporting import (
    comparison_of,
    comparison_tables,
    cost_tables,
    say,
    standard_console,
    write_report,
)
from lightning_opplan.tuner import (
    Delivered,
    PathSearchTuner,
    SearchResult,
    estimate_cost,
    follow_path,
    predict_ensemble,
    predict_on,
    run_control,
    run_delivery,
    run_grid,
    run_study,
    score_ensemble,
)
from lightning_opplan.tuner.edges.recipe import Experiment
from lightning_opplan.tuner.spec import SearchSpec

__all__ = ["OpplanCLI"]

_OWN_COMMANDS: Final = ("plan", "follow", "deliver", "control", "grid", "study", "cache", "flow")
_OF_PLAN_ALONE: Final = ("plan", "deliver", "control", "grid", "study")
"""Commands whose arguments are those of the group ``plan`` and of the experiment."""
_WITH_ENSEMBLES: Final = ("test", "predict")


def _settled(path: OptimizationPath, graph: TransitionGraph, taken: str | None) -> OptimizationPath:
    """The path with the settings of the graph, or of its own where that is what is wanted."""
    differences = path.differences(graph)
    if taken == "file":
        return path
    if differences and taken is None:
        more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
        raise ValueError(
            f"The path has other settings than `plan.graph`: {differences[0]}{more}. Say which to take: "
            "`--take_settings graph` or `--take_settings file`."
        )
    return path.transferred(graph)


def _only_command(words: ArgsType, commands: Container[str]) -> str | None:
    """The one command that the words can have arguments of; ``None`` where it cannot be told."""
    if isinstance(words, Mapping):
        name = words.get("subcommand")
        return name if set(words) == {"subcommand", name} else None
    first = next(iter(sys.argv[1:] if words is None else words), None)
    # Before it, there may be a file with arguments of several; and this one completes those of all.
    return first if first in commands and first != "completion" else None


def _described(summary: str) -> Any:
    """A method of which LightningCLI reads nothing but its docstring."""

    def method(self: Any) -> None: ...

    method.__doc__ = summary
    return method


class OpplanCLI(OpenCLI):
    """LightningCLI with planning.

    Use it in place of LightningCLI in a script of your own; classes and configuration files stay as they are.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A search that is started again must be the same search.
        kwargs.setdefault("seed_everything_default", 0)
        kwargs.setdefault("save_config_callback", SaveConfigOfFit)
        self.given = args, {name: value for name, value in kwargs.items() if name not in ("args", "run")}
        """What this was made of, without the words of the command line."""
        self.further: list[str] = []
        """The words after ``--``, which `table` hands to every command."""
        self.result: SearchResult | None = None
        """What `plan` found."""
        self.delivered: Delivered | None = None
        """What `deliver` or `control` trained."""
        self.scores: dict[str, Any] = {}
        """What `test` measured of an ensemble."""
        self.predictions: list[Any] = []
        """What `predict` returned for an ensemble."""
        words = signature(LightningCLI).bind_partial(*args, **kwargs).arguments.get("args")
        self._command_alone = None if kwargs.get("parser_kwargs") else _only_command(words, self.subcommands())
        super().__init__(*args, **kwargs)

    @staticmethod
    @override
    def subcommands() -> dict[str, set[str]]:
        skipped = {"model", "datamodule"}
        own = dict.fromkeys(_OWN_COMMANDS, skipped)
        return {**own, **{name: set() for name in TOOLS}, **LightningCLI.subcommands()}

    @override
    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        # LightningCLI reads the subcommands' arguments off methods of the Trainer's class.
        trainer_class = self.trainer_class
        if not isinstance(trainer_class, type):
            raise ValueError(f"`trainer_class` must be a class, got {trainer_class!r}.")
        about = {name: _described(tool.summary) for name, tool in TOOLS.items()}
        about["__doc__"] = "Lightning's Trainer"  # the title of its options
        self.trainer_class = type("PlanningTrainer", (Commands, trainer_class), about)
        main_kwargs = {"description": DESCRIPTION, **main_kwargs}
        try:
            super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        finally:
            self.trainer_class = trainer_class

    @override
    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**{"formatter_class": HelpFormatter, **kwargs})

    @override
    def command_parser(self, klass: type, subcommand: str, **options: Any) -> LightningArgumentParser:
        if self._command_alone not in (None, subcommand):
            return self.init_parser(**options)  # its arguments are not asked for, and take long to read off
        if subcommand in EXAMPLES:
            options["description"] = f"{options.get('description') or ''}\n{EXAMPLES[subcommand]}"
        if subcommand not in TOOLS:
            options.setdefault("usage", USAGE)
        if subcommand not in (*_OF_PLAN_ALONE, *TOOLS):
            parser = super().command_parser(klass, subcommand, **options)
            if subcommand in _WITH_ENSEMBLES:
                parser.add_argument("--ensemble", type=str | None, help="File of networks whose scores are averaged.")
            if subcommand == "predict":
                parser.add_argument("--scores", type=str | None, help="File for the scores, to be fused (.npz).")
                parser.add_argument(
                    "--split", type=Literal["train", "val", "test"], default="test", help="Videos to score."
                )
            return parser
        parser = self.init_parser(**options)
        if subcommand in TOOLS:
            TOOLS[subcommand].add_arguments(parser)
            return parser
        self.add_all_arguments(parser)
        if subcommand == "deliver":
            parser.add_argument("--members", type=int | None, help="Trainings per branch, as `plan.delivery.members`.")
        if subcommand == "plan":
            parser.add_argument(
                "--dry-run",
                action="store_true",
                help="Train some batches of every state, and say what the search costs.",
            )
        return parser

    @override
    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(PlanOptions, "plan")

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        words = sys.argv[1:] if args is None else args
        if isinstance(words, list) and words[:1] == ["table"] and "--" in words:
            end = words.index("--")
            self.further = words[end + 1 :]
            self.config = parser.parse_args(words[:end])
        else:
            super().parse_arguments(parser, args)

    @property
    @override
    def is_seeded(self) -> bool:
        return self.subcommand not in TOOLS

    @override
    def instantiate_classes(self) -> None:
        if self.subcommand not in (*_OWN_COMMANDS, *TOOLS) and not self._is_of_ensemble(self.subcommand):
            super().instantiate_classes()

    def before_predict(self) -> None:
        """Have scores written, if that is wanted; LightningCLI calls it."""
        predict_on(self.datamodule, self.value_of("split"))
        file = self.value_of("scores")
        if file is not None:
            source = f"{type(self.model).__name__}, {self.value_of('ckpt_path') or 'as it is made'}"
            add_callback(self.trainer, ScoreWriter(file, source))

    @override
    def run_command(self, subcommand: str) -> None:
        if subcommand in _OWN_COMMANDS:
            getattr(self, subcommand)()
        elif subcommand in TOOLS:
            tool, values = TOOLS[subcommand], self.config[subcommand]
            tool.run(values) if isinstance(tool, Tool) else tool.run(values, self)
        elif self._is_of_ensemble(subcommand):
            self._score(subcommand)
        else:
            super().run_command(subcommand)

    def main(self, words: list[str]) -> "OpplanCLI":
        """Run another command line of this program."""
        args, kwargs = self.given
        own, sys.argv = sys.argv, sys.argv[:1]  # or LightningCLI warns of words in both places
        try:
            return type(self)(*args, **{**kwargs, "args": words})
        finally:
            sys.argv = own

    def plan(self) -> None:
        """Search for the best path; `result` holds it afterwards."""
        options = self.plan_options()
        tuner = self._tuner(options)
        if self.value_of("dry_run"):
            self._estimate(tuner, options.graph, options.grid.epochs)
            return
        self.result = tuner.search()
        if self._is_first():
            folder = Path(options.dirpath)
            say(f"Path:    {folder / 'path.yaml'}\nReport:  {folder / 'report.html'}")

    def grid(self) -> None:
        """Train the hand-tuned grid; `result` holds the best of its trainings."""
        options = self.plan_options()
        graph = options.graph
        if graph.axes is None:
            raise ValueError("`plan.graph` must have `axes` for a hand-tuned grid, got states written out.")
        self.result = run_grid(
            self._tuner(options),
            axes=graph.built_axes(),
            branches=graph.branches,
            epochs=options.grid.epochs,
            decays=options.grid.decays,
        )
        self._compare(Path(options.dirpath), "grid")

    def study(self) -> None:
        """Train the variants of the path in the plan's folder; `result` holds the best of them."""
        options = self.plan_options()
        self.result = run_study(self._tuner(options))
        self._compare(Path(options.dirpath), "study")

    def deliver(self) -> None:
        """Train what `plan` found anew, on all data; `delivered` holds it afterwards."""
        options = self.plan_options()
        members = self.value_of("members")
        members = options.delivery.members if members is None else members
        tuner = self._tuner(options)
        self.delivered = run_delivery(
            tuner, members=members, anneal=options.delivery.anneal, setting=options.final_setting
        )
        self._name_ensembles(tuner.spec)

    def control(self) -> None:
        """Train what nobody plans, for the same cost; `delivered` holds it afterwards."""
        options = self.plan_options()
        tuner = self._tuner(options)
        self.delivered = run_control(tuner, schedules=options.control.schedules, setting=options.final_setting)
        self._name_ensembles(tuner.spec)

    def _name_ensembles(self, spec: SearchSpec) -> None:
        if not self._is_first() or self.delivered is None:
            return
        config = ConfigRecipe(self).save({}, spec.dirpath / "config.yaml")
        say(f"Weights: {os.path.relpath(self.delivered.weights)}")
        for file in self.delivered.ensembles.values():
            say(f"Test:    {self._command('test', config=config, ensemble=file)}")
        say(f"Report:  {os.path.relpath(spec.dirpath / 'report.html')}")

    def _command(self, subcommand: str, **files: Path) -> str:
        """Return a command as it can be typed here."""
        # A script that has classes of its own is the program; one that calls `main`, or a notebook, is not.
        given = [self.class_given(name) for name in ("model", "data")]
        is_program = type(self) is not OpplanCLI or given != [LightningModule, LightningDataModule]
        program = ["python", os.path.relpath(sys.argv[0])] if is_program else ["opplan"]
        words = [word for name, file in files.items() for word in (f"--{name}", os.path.relpath(file))]
        return shlex.join([*program, subcommand, *words])

    def _is_of_ensemble(self, subcommand: str | None) -> bool:
        return subcommand in _WITH_ENSEMBLES and self.value_of("ensemble") is not None

    def _score(self, subcommand: str) -> None:
        """Test, or predict with, the mean of several networks' scores."""
        file, recipe = Path(self.value_of("ensemble")), ConfigRecipe(self)
        if subcommand == "predict":
            self.predictions = predict_ensemble(
                file, recipe, scores=self.value_of("scores"), split=self.value_of("split")
            )
            return
        self.scores = score_ensemble(file, recipe, progress=say)
        plan = file.absolute().parent
        for folder in (plan, plan.parent):  # whose report has what was tested
            if self._is_first() and Journal.of(folder).file.is_file():
                write_report(folder)
                show_tests(folder)

    def _tuner(self, options: PlanOptions) -> PathSearchTuner:
        return PathSearchTuner(
            options.graph.build() if options.budget is None else options.graph.space(),
            recipe=ConfigRecipe(self),
            monitor=options.monitor,
            mode=options.mode,
            dirpath=options.dirpath,
            options=options,
            executor=options.executor,
            seed=self._seed(),
        )

    def _estimate(self, tuner: PathSearchTuner, graph: GraphOptions, epochs: Sequence[int]) -> None:
        """Print what the search would cost, beside the hand-tuned grid where there could be one."""
        axes = graph.built_axes() if tuner.spec.arms is None else []
        grid = hand_tuned_trainings(axes=axes, branches=graph.branches, epochs=epochs) if len(axes) > 1 else ()
        cost = estimate_cost(tuner, trainings=grid)
        if self._is_first():
            standard_console().print(cost_tables(cost))

    def _compare(self, folder: Path, name: str) -> None:
        """Print what a grid or a study came to beside its plan."""
        if not self._is_first():
            return
        is_beside = Journal.of(folder).file.is_file()
        if is_beside:
            standard_console().print(comparison_tables(comparison_of(folder)))
        say(f"Report:  {folder / 'report.html' if is_beside else folder / name / 'report.html'}")

    def _is_first(self) -> bool:
        """Whether this is the first rank; where edges run elsewhere there is no Trainer here, and one process."""
        trainer = getattr(self, "trainer", None)
        return trainer is None or trainer.is_global_zero

    def follow(self) -> None:
        """Train along a path."""
        options = self.plan_options()
        has_graph = options.budget is None and (options.graph.axes is not None or options.graph.states is not None)
        graph = options.graph.build() if has_graph else None
        path = OptimizationPath.load(self.value_of("path"), graph=graph)
        if graph is not None:
            path = _settled(path, graph, self.value_of("take_settings"))
        if self.value_of("anneal") is not None:
            path = replace(path, anneal=Anneal(**vars(self.value_of("anneal"))))
        folder, recipe = Path(options.dirpath).absolute() / "follow", ConfigRecipe(self)
        weights = follow_path(path, recipe, dirpath=folder, setting=options.final_setting, seed=self._seed())
        if not self._is_first():
            return
        # The network is to be tested as it was trained at last: sampled alike, for one.
        setting = {**plain_setting(path.steps[-1].setting), **options.final_setting}
        config = recipe.save(setting, folder / "config.yaml")
        say(f"Weights: {os.path.relpath(weights)}")
        say(f"Test:    {self._command('test', config=config, ckpt_path=weights)}")

    def cache(self) -> None:
        """Write the decoded frames of all videos to `data.cache_dir`."""
        data = self._video_data()
        num_threads = self.value_of("num_threads") or os.cpu_count() or 1
        write_cache(data, short_side=self.value_of("short_side"), num_threads=num_threads)

    def flow(self) -> None:
        """Write the optical flow of all videos to `data.flow_dir`."""
        method = self.value_of("method")
        num_processes = self.value_of("num_processes") or (1 if method == "raft" else os.cpu_count() or 1)
        write_flow(
            self._video_data(),
            method=method,
            weights=self.value_of("weights"),
            short_side=self.value_of("short_side"),
            bound=self.value_of("bound"),
            num_processes=num_processes,
        )

    def _video_data(self) -> VideoDataModule:
        data = self.instantiate_group("data")
        if not isinstance(data, VideoDataModule):
            raise ValueError(f"`data` must be a `VideoDataModule` to read its videos, got {type(data).__name__}.")
        return data

    def plan_options(self) -> PlanOptions:
        """Return the arguments of the group `plan`."""
        options: PlanOptions = self.instantiate_group("plan")
        return replace(options, dirpath=str(local_folder(options.dirpath)))

    def _seed(self) -> int:
        return int(self.value_of("seed_everything"))

    def data_of(self, config: Mapping[str, Any]) -> Any:
        """Instantiate the data of a configuration of this subcommand, and nothing else; ``None`` if it has none."""
        return self.instantiate_group("data", self.parsed(config)) if config.get("data") else None

    def experiment(self, config: Mapping[str, Any], callbacks: Sequence[Callback]) -> Experiment:
        """Instantiate model, data and Trainer from a configuration of this subcommand, all of them new.

        Args:
            config: As `base_config` returns it, changed or not.
            callbacks: Further callbacks for the Trainer.
        """
        trainer, model, data = self.rebuild(self.parsed(config), callbacks)
        return Experiment(trainer=trainer, model=model, data=data)

    def classes(self, config: Mapping[str, Any]) -> list[Any]:
        """Return the classes of model and data in a configuration."""
        named = (config.get(name) for name in ("model", "data"))
        paths = [node.get("class_path") if isinstance(node, dict) else None for node in named]
        given = [self.class_given(name) for name in ("model", "data")]
        return [cls if path is None else locate(path) for path, cls in zip(paths, given, strict=True)]

    def parsed(self, config: Mapping[str, Any]) -> Namespace:
        """Check a configuration of this subcommand.

        Raises:
            ValueError: If a value has the wrong type.
        """
        parser = self.parser_of_command
        parser.exit_on_error = False
        try:
            parsed: Namespace = parser.parse_object(dict(config))
            return parsed
        except ArgumentError as error:
            raise ValueError(" ".join(str(error).split())) from None
        finally:
            parser.exit_on_error = True

    def base_config(self) -> dict[str, Any]:
        """Return the resolved configuration of this subcommand, as it was given, as plain values."""
        return deepcopy(self._base_config)

    @cached_property
    def _base_config(self) -> dict[str, Any]:
        # Kept from the first time on: every experiment puts its own configuration in the place of the given one.
        dumped = self.parser.dump(self.config, skip_link_targets=True, skip_none=False, format="yaml")
        config: dict[str, Any] = parse_yaml(dumped)[self.subcommand]
        config.pop("config", None)
        return config
