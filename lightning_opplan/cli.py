"""The command line: LightningCLI with `plan`, `follow`, `grid`, `study`, `report` and `cache` beside its own."""

import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from typing_extensions import override

import lightning_opplan.modules  # noqa: F401 - so that a config can name the classes without their module
from lightning_opplan.config_recipe import ConfigRecipe
from lightning_opplan.data import VideoDataModule
from lightning_opplan.data.caching import write_cache
from lightning_opplan.planning.graph import TransitionGraph
from lightning_opplan.planning.hand_tuned import HandTuned, hand_tuned_graph, hand_tuned_trainings, training_table
from lightning_opplan.planning.journal import Journal
from lightning_opplan.planning.options import PlanOptions
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.planning.search import Outcomes
from lightning_opplan.planning.variants import path_variants, variants_graph
from lightning_opplan.reporting import comparison_of, comparison_tables, cost_tables, write_report
from lightning_opplan.tuner import PathSearchTuner, SearchResult
from lightning_opplan.tuner.devices import share_of_devices
from lightning_opplan.tuner.dry_run import estimate_cost
from lightning_opplan.tuner.follow import follow_path
from lightning_opplan.tuner.recipe import Experiment

__all__ = ["ConfigRecipe", "OpplanCLI", "main"]

_OWN_COMMANDS: Final = ("plan", "follow", "grid", "study", "report", "cache")
_OF_PLAN_ALONE: Final = ("plan", "grid", "study")
"""Commands whose arguments are those of the group ``plan`` and of the experiment."""


class _Commands:
    """Signatures from which the parsers of the further subcommands are made."""

    def plan(self, model: LightningModule, datamodule: LightningDataModule | None = None) -> None:
        """Search for the best path through the states of `plan.graph`; started again, resume."""

    def follow(self, model: LightningModule, path: str, datamodule: LightningDataModule | None = None) -> None:
        """Train along a path on all training data; started again, resume.

        Args:
            model: The model.
            path: YAML file of the path.
            datamodule: The data.
        """

    def grid(self, model: LightningModule, datamodule: LightningDataModule | None = None) -> None:
        """Train the hand-tuned grid of the paper, to compare with; started again, resume."""

    def study(self, model: LightningModule, datamodule: LightningDataModule | None = None) -> None:
        """Train the variants of the path that `plan` found, with one state more or less; started again, resume."""

    def report(self, dirpath: str) -> None:
        """Make the report of a search anew from its journal."""

    def cache(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        short_side: int = 256,
        num_threads: int | None = None,
    ) -> None:
        """Write the decoded frames of all videos to `data.cache_dir`; started again, go on, and check at the end.

        Args:
            model: The model; not used.
            datamodule: The data, a `VideoDataModule`.
            short_side: Short side of the frames in px.
            num_threads: Videos to decode at a time, by default one per core.
        """


class SaveConfigOfFit(SaveConfigCallback):
    """Saves the configuration of a fit alone: a second test in a folder must not fail over that of the first."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class OpplanCLI(LightningCLI):
    """LightningCLI with planning.

    Use it in place of LightningCLI in a script of your own; classes and configuration files stay as they are.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A search that is started again must be the same search.
        kwargs.setdefault("seed_everything_default", 0)
        kwargs.setdefault("save_config_callback", SaveConfigOfFit)
        self.given = args, {name: value for name, value in kwargs.items() if name not in ("args", "run")}
        """What this was made of, without the words of the command line."""
        self.result: SearchResult | None = None
        """What `plan` found."""
        super().__init__(*args, **kwargs)

    @staticmethod
    @override
    def subcommands() -> dict[str, set[str]]:
        skipped = {"model", "datamodule"}
        own = dict.fromkeys(_OWN_COMMANDS, skipped)
        return {**LightningCLI.subcommands(), **own, "report": set()}

    @override
    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        # LightningCLI reads the subcommands' arguments off methods of the Trainer's class.
        trainer_class = self.trainer_class
        if not isinstance(trainer_class, type):
            raise ValueError(f"`trainer_class` must be a class, got {trainer_class!r}.")
        self.trainer_class = type("PlanningTrainer", (_Commands, trainer_class), {})
        try:
            super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        finally:
            self.trainer_class = trainer_class

    @override
    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        if subcommand not in (*_OF_PLAN_ALONE, "report"):
            return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser = self.init_parser(**kwargs)
        if subcommand == "report":
            parser.add_argument("dirpath", type=str, help="Folder of the search.")
            return parser
        self._add_arguments(parser)
        if subcommand == "plan":
            parser.add_argument(
                "--dry-run",
                action="store_true",
                help="Train some batches of every state, and say what the search costs.",
            )
        return parser

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(PlanOptions, "plan")

    @override
    def _set_seed(self) -> None:
        if self.subcommand != "report":
            super()._set_seed()

    @override
    def instantiate_classes(self) -> None:
        if self.subcommand not in _OWN_COMMANDS:
            super().instantiate_classes()

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand in _OWN_COMMANDS:
            getattr(self, subcommand)()
        else:
            super()._run_subcommand(subcommand)

    def plan(self) -> None:
        """Search for the best path; `result` holds it afterwards."""
        options = self.plan_options()
        graph, folder = options.graph.build(), Path(options.dirpath)
        if self._get(self.config, "dry_run"):
            self._estimate(options, graph)
            return
        self.result = self._tuner(options, graph, folder, beam=options.beam, preset=options.preset).search()
        if self._is_first():
            print(f"Path:    {folder / 'path.yaml'}\nReport:  {folder / 'report.html'}")

    def grid(self) -> None:
        """Train the hand-tuned grid; `result` holds it afterwards."""
        options = self.plan_options()
        trainings = self._hand_tuned(options)
        graph, stages = hand_tuned_graph(trainings)
        folder = Path(options.dirpath)
        self.result = self._tuner(
            options, graph, folder / "grid", stages=stages, trainings=training_table(trainings)
        ).search()
        self._report_beside(folder, "grid")

    def study(self) -> None:
        """Train the variants of the path in the plan's folder; `result` holds the best of them."""
        options = self.plan_options()
        folder = Path(options.dirpath)
        base = options.graph.build()
        path = OptimizationPath.load(folder / "path.yaml")
        path.check(base)
        variants = path_variants(base, [step.state for step in path.steps])
        graph = variants_graph(base.settings, variants)
        table = {variant.name: {"kind": variant.kind, "states": list(variant.states)} for variant in variants}
        self.result = self._tuner(options, graph, folder / "study", trainings=table, preset=options.preset).search()
        self._report_beside(folder, "study")

    def _tuner(self, options: PlanOptions, graph: TransitionGraph, folder: Path, **further: Any) -> PathSearchTuner:
        return PathSearchTuner(
            graph,
            recipe=ConfigRecipe(self),
            monitor=options.monitor,
            mode=options.mode,
            dirpath=folder,
            knee=options.knee.arguments(),
            start_value=options.start_value,
            seed=self._seed(),
            executor=options.executor,
            value=options.value,
            max_epochs_per_edge=options.max_epochs_per_edge,
            max_gpu_hours=options.max_gpu_hours,
            num_threads=options.num_threads,
            **further,
        )

    def _hand_tuned(self, options: PlanOptions) -> tuple[HandTuned, ...]:
        if options.graph.axes is None:
            raise ValueError("`plan.graph` must have `axes` for a hand-tuned grid, got states written out.")
        return hand_tuned_trainings(
            axes=options.graph.built_axes(), branches=options.graph.branches, epochs=options.grid.epochs
        )

    def _estimate(self, options: PlanOptions, graph: TransitionGraph) -> None:
        """Print what the search would cost."""
        journal = Journal(Path(options.dirpath) / "journal.jsonl")
        outcomes: Outcomes = {}
        if journal.file.is_file():
            plan, known = journal.read()
            outcomes = known if plan.graph.edges == graph.edges and plan.graph.settings == graph.settings else {}
        trainings = () if options.graph.axes is None or len(options.graph.axes) < 2 else self._hand_tuned(options)
        recipe = ConfigRecipe(self)
        cost = estimate_cost(
            graph,
            recipe,
            outcomes=outcomes,
            trainings=trainings,
            max_epochs_per_edge=options.max_epochs_per_edge,
            patience=options.knee.patience,
            beam=options.beam,
            share=share_of_devices(options.executor, recipe, graph),
        )
        if self._is_first():
            Console().print(cost_tables(graph, cost))

    def _report_beside(self, folder: Path, name: str) -> None:
        """Renew the report of the plan that a grid or a study belongs to."""
        if not self._is_first():
            return
        if (folder / "journal.jsonl").is_file():
            file = write_report(folder)
            Console().print(comparison_tables(comparison_of(folder)))
            print(f"Report:  {file}")
        else:
            print(f"Report:  {folder / name / 'report.html'}")

    def _is_first(self) -> bool:
        """Whether this is the first rank; where edges run elsewhere there is no Trainer here, and one process."""
        trainer = getattr(self, "trainer", None)
        return trainer is None or trainer.is_global_zero

    def follow(self) -> None:
        """Train along a path."""
        options = self.plan_options()
        path = OptimizationPath.load(self._get(self.config, "path"))
        if options.graph.axes is not None or options.graph.states is not None:
            path.check(options.graph.build())
        folder, recipe = Path(options.dirpath) / "follow", ConfigRecipe(self)
        weights = follow_path(path, recipe, dirpath=folder, setting=options.final_setting, seed=self._seed())
        if not self._is_first():
            return
        # The network is to be tested as it was trained at last: sampled alike, for one.
        config = recipe.save({**path.steps[-1].setting, **options.final_setting}, folder / "config.yaml")
        file = os.path.relpath(weights)
        print(f"Weights: {file}\nTest:    opplan test --config {config} --ckpt_path {file}")

    def report(self) -> None:
        """Make the report anew, and print what there is to compare."""
        folder = Path(self._get(self.config, "dirpath"))
        file = write_report(folder)
        Console().print(comparison_tables(comparison_of(folder)))
        print(f"Report:  {file}")

    def cache(self) -> None:
        """Write the decoded frames of all videos to `data.cache_dir`."""
        only_data = Namespace({"data": self._get(self.config, "data")})  # type: ignore[no-untyped-call]
        data = self._parser(self.subcommand).instantiate_classes(only_data)["data"]
        if not isinstance(data, VideoDataModule):
            raise ValueError(f"`data` must be a `VideoDataModule` to write its frames, got {type(data).__name__}.")
        arguments = self._get(self.config, "short_side"), self._get(self.config, "num_threads")
        write_cache(data, short_side=arguments[0], num_threads=arguments[1] or os.cpu_count() or 1)

    def plan_options(self) -> PlanOptions:
        """Return the arguments of the group `plan`."""
        only_plan = Namespace({"plan": self._get(self.config, "plan")})  # type: ignore[no-untyped-call]
        options: PlanOptions = self._parser(self.subcommand).instantiate_classes(only_plan)["plan"]
        return options

    def _seed(self) -> int:
        return int(self._get(self.config, "seed_everything"))

    def experiment(self, config: Mapping[str, Any], callbacks: Sequence[Callback]) -> Experiment:
        """Instantiate model, data and Trainer from a configuration of this subcommand, all of them new.

        Args:
            config: As `base_config` returns it, changed or not.
            callbacks: Further callbacks for the Trainer.
        """
        self.config[self.subcommand] = self.parsed(config)
        # An edge that resumes has saved its configuration before.
        self.save_config_kwargs = {**self.save_config_kwargs, "overwrite": True}
        # Or checkpoints would hold the hyper-parameters of the base configuration.
        self.__dict__.pop("config_dump", None)
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self._add_configure_optimizers_method_to_model(self.subcommand)
        own = self._get(self.config_init, "trainer").get("callbacks") or []
        own = own if isinstance(own, list) else [own]
        self.trainer = self.instantiate_trainer(callbacks=[*own, *callbacks])
        return Experiment(trainer=self.trainer, model=self.model, data=self.datamodule)

    def parsed(self, config: Mapping[str, Any]) -> Namespace:
        """Check a configuration of this subcommand.

        Raises:
            ValueError: If a value has the wrong type.
        """
        parser = self._parser(self.subcommand)
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
        config: dict[str, Any] = yaml.safe_load(dumped)[self.subcommand]
        config.pop("config", None)
        return config


def main(args: list[str] | None = None) -> OpplanCLI:
    """Run the command line; ends the process with a status other than 0 and one sentence if something is wrong.

    Args:
        args: Words of the command line; by default those of the process.

    Returns:
        The command line after its work, with `trainer`, `model` and `result`.
    """
    # Lightning's own, on every call of it with newer versions of torch.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    try:
        return OpplanCLI(
            LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True, args=args
        )
    except SIGTERMException:
        raise SystemExit(143) from None  # as a shell reports it; Lightning would say 0
    except KeyboardInterrupt:
        print("opplan: interrupted; the same command goes on from here.", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        sentence = next((cause for cause in _causes(error) if _is_ours(cause) or isinstance(cause, OSError)), None)
        if sentence is None:
            raise
        print(f"opplan: {sentence}", file=sys.stderr)
        raise SystemExit(1) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from: jsonargparse wraps what a constructor raises."""
    while error is not None:
        yield error
        error = error.__cause__


def _is_ours(error: BaseException) -> bool:
    """Whether the error was raised by this package on purpose; others keep their traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)
