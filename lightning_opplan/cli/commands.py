"""The signatures and first lines of the further subcommands with a model, of which their parsers are made."""

from typing import Literal

from lightning.pytorch import LightningDataModule, LightningModule

from lightning_opplan.data.flow import FlowMethod
from lightning_opplan.planning.schedule import Anneal

__all__ = ["Commands"]


class Commands:
    """Signatures from which the parsers of the further subcommands with a model are made."""

    def plan(self, model: LightningModule, datamodule: LightningDataModule | None = None) -> None:
        """Search for the best path through the states of `plan.graph`; started again, resume."""

    def follow(
        self,
        model: LightningModule,
        path: str,
        datamodule: LightningDataModule | None = None,
        anneal: Anneal | None = None,
        take_settings: Literal["graph", "file"] | None = None,
    ) -> None:
        """Train along a path on all training data; started again, resume.

        Args:
            model: The model.
            path: YAML file of the path, or the name of a published one, such as kinetics400.
            datamodule: The data.
            anneal: How the rate falls at the end, in place of what the path says.
            take_settings: Where the path has other settings than `plan.graph` for a state: which to take.
        """

    def deliver(self, model: LightningModule, datamodule: LightningDataModule | None = None) -> None:
        """Train what `plan` found anew, on all data, for the rest of the budget; started again, resume."""

    def control(self, model: LightningModule, datamodule: LightningDataModule | None = None) -> None:
        """Train what nobody plans, for the cost of search and delivery, to compare with; started again, resume."""

    def grid(self, model: LightningModule, datamodule: LightningDataModule | None = None) -> None:
        """Train the hand-tuned grid of the paper, to compare with; started again, resume."""

    def study(self, model: LightningModule, datamodule: LightningDataModule | None = None) -> None:
        """Train the variants of the path that `plan` found, with one state more or less; started again, resume."""

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

    def flow(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        method: FlowMethod = "tv_l1",
        weights: str | None = None,
        short_side: int = 256,
        bound: float = 20.0,
        num_processes: int | None = None,
    ) -> None:
        """Write the optical flow of all videos to `data.flow_dir`; started again, go on, and check at the end.

        Args:
            model: The model; not used.
            datamodule: The data, a `VideoDataModule`.
            method: TV-L1, or torchvision's RAFT, which is quick on a GPU.
            weights: File with weights of RAFT, in place of those that torchvision downloads.
            short_side: Short side in px that frames are scaled to before; smaller ones are taken as they are.
            bound: Displacement in px that the lightest grey stands for; what is beyond is cut.
            num_processes: Videos to work on at a time, by default one per core; one with RAFT.
        """
