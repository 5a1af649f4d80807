"""The data module for video classification."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from lightning.pytorch import LightningDataModule
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from typing_extensions import override

from lightning_opplan.data.asked_clips import AskedClips
from lightning_opplan.data.clips import EvaluationClips, TestViews, TrainingClips
from lightning_opplan.data.datasets import read_dataset
from lightning_opplan.data.flow import Modality
from lightning_opplan.data.frames import memory
from lightning_opplan.data.frames.pixel_files import PixelCache
from lightning_opplan.data.frames.sources import Decoder, Source
from lightning_opplan.data.lists import (
    Split,
    Video,
    VideoList,
    checked_folder,
    first_names,
    flow_folder,
    missing_videos,
    read_csv,
    read_folders,
)
from lightning_opplan.data.sampling import Sampling, ShortVideo
from lightning_opplan.data.short_cycle import LARGEST_BATCH, SHORT_CYCLE, ShortCycleBatches
from lightning_opplan.data.splits import kept_split, warn_of_large
from lightning_opplan.inputs import Preprocessing, Shape
from lightning_opplan.messages import checked_choice

__all__ = ["VideoDataModule"]

Loader = DataLoader[tuple[Tensor, int]]
T = TypeVar("T")


class VideoDataModule(LightningDataModule):
    """Clips of the videos of a public data set, of a folder per class, or of a CSV.

    Batches are ``(clips, labels)`` with clips ``(B, C, T, H, W)``; in the test ``(B, V, C, T, H, W)`` with V views.

    Args:
        root: Folder of the data set. Without `dataset` and `annotations` it holds ``<class>/<video>``, or
            ``<train|val|test>/<class>/<video>``.
        dataset: A data set whose own lists are read: `"activitynet"`, `"hmdb51"`, `"kinetics400"`, `"kinetics600"`,
            `"something_v1"`, `"something_v2"` or `"ucf101"`. Where the labels of the official test set are not
            published, the official validation set is the test set.
        split: Official split of HMDB51 and UCF101: 1, 2 or 3.
        annotations: With `dataset` the folder of its lists, by default where its archives put them; else a CSV with
            the columns `path`, `label` and `split`. Relative to `root` unless absolute.
        group_column: Column of the CSV that says what a video was cut from, so that no source is on both sides of the
            internal validation split.
        sampling: `"consecutive"`: neighbouring frames from a random place; `"uniform"`: four neighbouring frames from
            each of ``clip_length / 4`` equal segments of the video.
        clip_length: Frames of a training clip; by default 16, or what the network was made for if it says so.
        frame_stride: Step between the frames of a consecutive training clip.
        eval_clip_length: Frames of a clip in validation and test, the same for every state of a plan. By default
            `clip_length`.
        eval_frame_stride: Step between the frames there. By default `frame_stride`.
        short_video: What follows the last frame of a video that is too short: its beginning again, or its last frame.
        short_side: Smallest and largest short side in px that training scales to; validation takes the smallest. By
            default 256 and 340, or in proportion what the network was made for.
        crop_size: Side in px of the crops in training and validation; by default 224, or what the network was made
            for.
        test_crop_size: Side in px of the crops in the test; by default `crop_size`.
        flip: Flip half of the training clips; not where left and right matter to a class.
        num_test_clips: Evenly spaced clips per video in the test.
        num_test_crops: Crops per clip in the test: 3 along the longer side, or 1 in the centre.
        batch_size: Training clips per step and device.
        short_cycle: Of every three training batches the first two have clips of a half and of √½ of the height and
            width, and 4 and 2 times as many of them: the short cycle of multigrid training.
        eval_batch_size: Videos per step and device in validation; the test takes one. By default `batch_size`.
        num_workers: Processes that load clips.
        val_size: Videos to cut from the training set for validation: a count, or a share below 1. By default as many
            as the test set has, or a fifth if there is none. Not used if the data has a validation set of its own.
        split_seed: Seed of that split.
        val_file: File that says which videos these are, one name a line; written if it is not there. By default one in
            the user's cache folder, see `cache_folder`.
        train_on_validation: Train on the validation videos, too: for the final model along a finished path.
        on_missing: What listed videos that are not there do: `"raise"` ends the run, `"skip"` leaves them out. Either
            says how many they are.
        on_error: What a video that cannot be decoded does: `"raise"` ends the run, before its first epoch if reading
            through the file shows it; `"skip"` leaves the video out and says so.
        max_broken: How many videos may be left out so before the run ends all the same: a count, or a share below 1.
        decoder: `"pyav"`, or `"torchcodec"` where it is installed.
        cache: Keep all decoded frames in memory, for small data sets.
        cache_dir: Folder of decoded frames that `opplan cache` wrote; used for the videos that it has.
        modality: ``"rgb"``, or ``"flow"``: clips of two channels, optical flow to the right and down. Where a clip is
            mirrored, the first of them changes its sign.
        mean: Of every channel, of values from 0 to 1; by default what the network was made for, else ImageNet's. Flow
            has its own.
        std: The same for the standard deviation.
        flow_dir: Folder of the flow of every listed video: folders of x_00001.jpg, y_00001.jpg and so on, which
            `opplan flow` writes, or as other tools name them. Without it, the listed videos are such folders
            themselves, or GIFs whose red is to the right and whose green is down.

    Attributes:
        predict_split: The split whose videos a prediction is for, views and all: ``"test"``, or ``"val"`` to choose
            weights of a fusion on.
        classes: Names of the classes, after ``setup``.
        videos: The videos of every split, after ``setup``.

    Raises:
        ValueError: If an argument is out of range.
        FileNotFoundError: If the folder, a list, or a video with ``on_missing="raise"`` is missing.
        VideoError: If a video cannot be decoded, with ``on_error="raise"``.

    References:
        Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, sections 5.1 and 5.2.
    """

    def __init__(
        self,
        root: str,
        *,
        dataset: str | None = None,
        split: int | None = None,
        annotations: str | None = None,
        group_column: str | None = None,
        sampling: Sampling = "consecutive",
        clip_length: int | None = None,
        frame_stride: int = 1,
        eval_clip_length: int | None = None,
        eval_frame_stride: int | None = None,
        short_video: ShortVideo = "loop",
        short_side: tuple[int, int] | None = None,
        crop_size: int | None = None,
        test_crop_size: int | None = None,
        flip: bool = True,
        num_test_clips: int = 10,
        num_test_crops: int = 3,
        batch_size: int = 16,
        short_cycle: bool = False,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        val_size: float | None = None,
        split_seed: int = 0,
        val_file: str | None = None,
        train_on_validation: bool = False,
        on_missing: Literal["raise", "skip"] = "raise",
        on_error: Literal["raise", "skip"] = "raise",
        max_broken: float = 0.01,
        decoder: Decoder = "pyav",
        cache: bool = False,
        cache_dir: str | None = None,
        modality: Modality = "rgb",
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        flow_dir: str | None = None,
    ) -> None:
        super().__init__()
        checked_choice("sampling", sampling, get_args(Sampling))
        checked_choice("short_video", short_video, get_args(ShortVideo))
        checked_choice("on_missing", on_missing, ("raise", "skip"))
        checked_choice("on_error", on_error, ("raise", "skip"))
        checked_choice("decoder", decoder, get_args(Decoder))
        checked_choice("modality", modality, get_args(Modality))
        if num_test_crops not in (1, 3):
            raise ValueError(f"`num_test_crops` must be 1 or 3, got {num_test_crops!r}.")
        self.root, self.dataset, self.split = root, dataset, split
        self.annotations, self.group_column = annotations, group_column
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.short_cycle = short_cycle
        self.num_workers = num_workers
        self.num_test_clips, self.num_test_crops = num_test_clips, num_test_crops
        self.val_size, self.split_seed, self.val_file = val_size, split_seed, val_file
        self.train_on_validation = train_on_validation
        self.on_missing, self.on_error, self.max_broken = on_missing, on_error, max_broken
        self.cache = cache
        self.flow_dir = flow_dir
        self.source = Source(cache_dir=cache_dir, decoder=decoder, modality=modality)

        self._asked = AskedClips(
            sampling=sampling, short_video=short_video, flip=flip, clip_length=clip_length,
            eval_clip_length=eval_clip_length, frame_stride=frame_stride, eval_frame_stride=eval_frame_stride,
            short_side=short_side, crop_size=crop_size, test_crop_size=test_crop_size, mean=mean, std=std,
        )  # fmt: skip
        self.train_spec, self.eval_spec, self.test_spec = self._asked.specs(self.source)

        self.predict_split: Split = "test"
        self.classes: tuple[str, ...] = ()
        self.videos: dict[Split, tuple[Video, ...]] = {}

    def adopt(self, preprocessing: Preprocessing | None) -> None:
        """Take what a network was made for, if it says so, where nothing else was asked for.

        Raises:
            ValueError: If that does not go with what was asked for.
        """
        self.train_spec, self.eval_spec, self.test_spec = self._asked.specs(self.source, preprocessing)

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """``(C, T, H, W)`` of the clips for training, validation and test."""
        sides = {"training": 1.0, **({"the short cycle": min(SHORT_CYCLE)} if self.short_cycle else {})}
        shapes = {name: self.train_spec.scaled(side).shape for name, side in sides.items()}
        return {**shapes, "validation": self.eval_spec.shape, "the test": self.test_spec.shape}

    @override
    def prepare_data(self) -> None:
        """Read through the files, once on each machine; each process then finds on disk what is known of them."""
        if self.cache:
            return  # every process decodes them anyway
        listed = self.read_list()
        videos = [video for videos in listed.splits.values() for video in videos]
        paths = (v.path for v in videos if not self.source.is_cached(v) and os.path.exists(v.path))
        memory.scan(paths, modality=self.source.modality)

    @override
    def setup(self, stage: str) -> None:
        if self.videos:
            return
        if self.source.cache_dir is not None:
            # Or it is missed only when the first clip is cut.
            PixelCache.opened(self.source.cache_dir).check(self.source.modality)
        found = self.read_list()
        self.classes = found.classes
        # Split first: which videos are kept for validation must not depend on which files are there today.
        splits = self._with_validation(found.splits)
        present = self.without_missing(VideoList(classes=found.classes, splits=splits))
        usable = self._without_broken(present.splits)
        self._check_classes(usable)
        if self.train_on_validation:
            usable["train"] = (*usable["train"], *usable["val"])
        self.videos = usable

    @override
    def train_dataloader(self) -> Loader:
        videos = self._split("train")
        num_devices = self.trainer.world_size if self.trainer else 1
        clips = TrainingClips(videos, self.train_spec, max_broken=self._limit(len(videos)))
        # A last batch of one or two clips would upset the statistics of batch normalisation.
        largest = self.batch_size * (LARGEST_BATCH if self.short_cycle else 1)
        drop_last = math.ceil(len(videos) / num_devices) > largest
        if self.short_cycle:
            batches = ShortCycleBatches(RandomSampler(clips), self.batch_size, drop_last)
            return self._loader(clips, batch_sampler=batches)
        return self._loader(clips, batch_size=self.batch_size, shuffle=True, drop_last=drop_last)

    @override
    def val_dataloader(self) -> Loader:
        videos = self._split("val")
        clips = EvaluationClips(videos, self.eval_spec, max_broken=self._limit(len(videos)))
        return self._loader(clips, batch_size=self.eval_batch_size)

    @override
    def test_dataloader(self) -> Loader:
        return self._views("test")

    def _views(self, split: Split) -> Loader:
        videos = self._split(split)
        views = TestViews(
            videos,
            self.test_spec,
            num_clips=self.num_test_clips,
            num_crops=self.num_test_crops,
            max_broken=self._limit(len(videos)),
        )
        return self._loader(views, batch_size=1)

    @override
    def predict_dataloader(self) -> Loader:
        return self._views(self.predict_split)

    def predict_on(self, split: Split) -> None:
        """Choose the split whose videos a prediction is for.

        Raises:
            ValueError: If the validation videos are trained on, so that nothing can be chosen on their scores.
        """
        if split == "val" and self.train_on_validation:
            raise ValueError(
                '`split` must not be "val" with `data.train_on_validation`: those videos were trained on. Train '
                "without (`--plan.final_setting '{}'`) to choose anything on their scores."
            )
        self.predict_split = split

    def read_list(self) -> VideoList:
        """Read which videos there should be, with the paths of what is trained on: of their flow, that is, if so.

        Raises:
            ValueError: If a list is not as it should be.
            FileNotFoundError: If the folder or a list is missing.
        """
        listed = self.read_videos()
        if self.flow_dir is None or self.source.modality != "flow":
            return listed
        folder = checked_folder(self.flow_dir, "flow_dir")
        return replace(
            listed,
            splits={
                split: tuple(replace(video, path=flow_folder(folder, video)) for video in videos)
                for split, videos in listed.splits.items()
            },
        )

    def read_videos(self) -> VideoList:
        """Read which videos there should be, with the paths of their files whatever is trained on."""
        if self.dataset is not None:
            return read_dataset(self.dataset, self.root, annotations=self.annotations, split=self.split)
        if self.split is not None:
            raise ValueError(f"`split` must be left out without `dataset`, got {self.split!r}.")
        if self.annotations is None:
            return read_folders(self.root)
        return read_csv(os.path.join(self.root, self.annotations), self.root, group_column=self.group_column)

    def without_missing(self, found: VideoList) -> VideoList:
        """Leave out the videos that are not there, or raise an error, as `on_missing` says."""
        missing = self._of_first_process(missing_videos(found, besides=self.source.is_cached))
        if not missing:
            return found
        counts = ", ".join(
            f"{len(paths)} of {len(found.splits[split])} {split} videos" for split, paths in missing.items()
        )
        place = self.root if self.flow_dir is None or self.source.modality != "flow" else self.flow_dir
        names = first_names([os.path.relpath(path, place) for paths in missing.values() for path in paths])
        sentence = f"{counts} are not below {place!r}: {names}"
        if self.on_missing == "raise":
            add = "Add them" if place == self.root else "Add them with `opplan flow`"
            raise FileNotFoundError(f'{sentence}. {add}, or set `on_missing="skip"` to go on without them.')
        rank_zero_warn(f"{sentence}; they are left out.")
        gone = {path for paths in missing.values() for path in paths}
        splits = {
            split: tuple(video for video in videos if video.path not in gone) for split, videos in found.splits.items()
        }
        return VideoList(classes=found.classes, splits=splits)

    def _with_validation(self, splits: dict[Split, tuple[Video, ...]]) -> dict[Split, tuple[Video, ...]]:
        """Cut the internal validation set from the training set, unless the data has one of its own."""
        train = splits.get("train")
        if "val" in splits or not train:
            return dict(splits)
        size = self.val_size if self.val_size is not None else len(splits.get("test", ())) or 0.2
        file = None if self.val_file is None else Path(self.val_file)
        kept, cut = kept_split(train, size=size, seed=self.split_seed, file=file)
        if not self.train_on_validation:
            warn_of_large(len(cut), len(train), self.val_size, "videos")
        return {**splits, "train": tuple(train[i] for i in kept), "val": tuple(train[i] for i in cut)}

    def _without_broken(self, splits: dict[Split, tuple[Video, ...]]) -> dict[Split, tuple[Video, ...]]:
        paths = [video.path for videos in splits.values() for video in videos if not self.source.is_cached(video)]
        errors = self._of_first_process(memory.scan(paths, modality=self.source.modality, keep_pixels=self.cache))
        if errors and self.on_error == "raise":
            more = f" ({len(errors) - 1} more of {len(paths)} videos are broken)" if len(errors) > 1 else ""
            errors[0].reason += f'{more}. Mend or delete it, or set `on_error="skip"` to leave such videos out'
            raise errors[0]
        if len(errors) > self._limit(len(paths)):
            errors[0].reason += (
                f" ({len(errors)} of {len(paths)} videos are broken: more than `max_broken` "
                f"({self.max_broken:g}) allows)"
            )
            raise errors[0]
        if errors:
            named = "; ".join(map(str, errors[:5])) + ("; …" if len(errors) > 5 else "")
            rank_zero_warn(f"{len(errors)} of {len(paths)} videos cannot be decoded and are left out: {named}")
        broken = {error.path for error in errors}
        return {split: tuple(v for v in videos if v.path not in broken) for split, videos in splits.items()}

    def _check_classes(self, splits: dict[Split, tuple[Video, ...]]) -> None:
        """Refuse classes that nothing is trained of."""
        trained = {video.label for video in splits.get("train", ())}
        asked = {video.label for videos in splits.values() for video in videos}
        lacking = [self.classes[label] for label in sorted(asked - trained)]
        if trained and lacking:
            raise ValueError(f"`root` must have a training video of every class, got none of {first_names(lacking)}.")

    def _of_first_process(self, value: T) -> T:
        """What the first process found, so that all train on the same videos."""
        if self.trainer is None or self.trainer.world_size == 1:
            return value
        agreed: T = self.trainer.strategy.broadcast(value)
        return agreed

    def _limit(self, num_videos: int) -> int:
        """How many of some videos may be left out."""
        if self.on_error == "raise":
            return 0
        return math.ceil(self.max_broken if self.max_broken >= 1 else self.max_broken * num_videos)

    def _split(self, split: Split) -> tuple[Video, ...]:
        if not self.videos.get(split):
            known = ", ".join(f"{name} ({len(videos)} videos)" for name, videos in self.videos.items())
            raise ValueError(f"`root` must hold a {split} set, got {self.root!r} with {known or 'nothing'}.")
        return self.videos[split]

    def _loader(self, dataset: Dataset[tuple[Tensor, int]], **options: Any) -> Loader:
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            **options,
        )
