"""The data module for video classification."""

import os
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningDataModule
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lightning_opplan.data import store
from lightning_opplan.data.clips import ClipSpec, EvaluationClips, TestViews, TrainingClips
from lightning_opplan.data.lists import Split, Video, VideoList, read_csv, read_folders
from lightning_opplan.data.sampling import SEGMENT_LENGTH, Sampling, ShortVideo
from lightning_opplan.data.splits import internal_split
from lightning_opplan.planning.messages import checked_choice

__all__ = ["VideoDataModule"]

Loader = DataLoader[tuple[Tensor, int]]


class VideoDataModule(LightningDataModule):
    """Clips of videos in a folder per class, or listed in a CSV.

    Batches are ``(clips, labels)`` with clips ``(B, C, T, H, W)``; in the test ``(B, V, C, T, H, W)`` with V views.

    Args:
        root: Folder of the videos: ``<class>/<video>`` or ``<train|val|test>/<class>/<video>``; with `annotations`,
            the folder that its paths are relative to.
        annotations: CSV with the columns `path`, `label` and `split`; relative to `root` unless absolute.
        group_column: Column of the CSV that says what a video was cut from, so that no source is on both sides of the
            internal validation split.
        sampling: `"consecutive"`: neighbouring frames from a random place; `"uniform"`: four neighbouring frames from
            each of ``clip_length / 4`` equal segments of the video.
        clip_length: Frames of a training clip.
        frame_stride: Step between the frames of a consecutive training clip.
        eval_clip_length: Frames of a clip in validation and test, the same for every state of a plan. By default
            `clip_length`.
        eval_frame_stride: Step between the frames there. By default `frame_stride`.
        short_video: What follows the last frame of a video that is too short: its beginning again, or its last frame.
        short_side: Smallest and largest short side in px that training scales to; validation takes the smallest.
        crop_size: Side in px of the crops in training and validation.
        test_crop_size: Side in px of the crops in the test; by default `crop_size`.
        flip: Flip half of the training clips; not where left and right matter to a class.
        num_test_clips: Evenly spaced clips per video in the test.
        num_test_crops: Crops per clip in the test: 3 along the longer side, or 1 in the centre.
        batch_size: Training clips per step and device.
        eval_batch_size: Videos per step and device in validation; the test takes one. By default `batch_size`.
        num_workers: Processes that load clips.
        val_size: Videos to cut from the training set for validation: a count, or a share below 1. Not used if the data
            has a validation set of its own.
        split_seed: Seed of that split.
        train_on_validation: Train on the validation videos, too: for the final model along a finished path.
        on_error: What a video that cannot be decoded does: `"raise"` ends the run before its first epoch, `"skip"`
            leaves the video out and says so.
        cache: Keep all decoded frames in memory, for small data sets.

    Raises:
        ValueError: If an argument is out of range.
        FileNotFoundError: If the folder, the CSV or a video of it is missing.
        VideoError: If a video cannot be decoded, with ``on_error="raise"``.

    References:
        Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, sections 5.1 and 5.2.
    """

    def __init__(
        self,
        root: str,
        *,
        annotations: str | None = None,
        group_column: str | None = None,
        sampling: Sampling = "consecutive",
        clip_length: int = 16,
        frame_stride: int = 1,
        eval_clip_length: int | None = None,
        eval_frame_stride: int | None = None,
        short_video: ShortVideo = "loop",
        short_side: tuple[int, int] = (256, 340),
        crop_size: int = 224,
        test_crop_size: int | None = None,
        flip: bool = True,
        num_test_clips: int = 10,
        num_test_crops: int = 3,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        val_size: float = 0.2,
        split_seed: int = 0,
        train_on_validation: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        cache: bool = False,
    ) -> None:
        super().__init__()
        checked_choice("sampling", sampling, get_args(Sampling))
        checked_choice("short_video", short_video, get_args(ShortVideo))
        checked_choice("on_error", on_error, ("raise", "skip"))
        if num_test_crops not in (1, 3):
            raise ValueError(f"`num_test_crops` must be 1 or 3, got {num_test_crops!r}.")
        if not crop_size <= short_side[0] <= short_side[1]:
            raise ValueError(
                f"`short_side` must be a range in px of at least `crop_size` ({crop_size}), got {short_side!r}."
            )
        lengths = {"clip_length": clip_length, "eval_clip_length": eval_clip_length or clip_length}
        for argument, length in lengths.items():
            if sampling == "uniform" and length % SEGMENT_LENGTH:
                raise ValueError(
                    f"`{argument}` must be a multiple of {SEGMENT_LENGTH} for uniform sampling, got {length}."
                )
        self.root, self.annotations, self.group_column = root, annotations, group_column
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers = num_workers
        self.num_test_clips, self.num_test_crops = num_test_clips, num_test_crops
        self.val_size, self.split_seed = val_size, split_seed
        self.train_on_validation = train_on_validation
        self.on_error = on_error
        self.cache = cache

        def spec(length: int, stride: int, size: int, sides: tuple[int, int]) -> ClipSpec:
            return ClipSpec(
                sampling=sampling, clip_length=length, frame_stride=stride, short_video=short_video,
                crop_size=size, short_side=sides, flip=flip,
            )  # fmt: skip

        eval_length, eval_stride = eval_clip_length or clip_length, eval_frame_stride or frame_stride
        test_size = test_crop_size or crop_size
        self.train_spec = spec(clip_length, frame_stride, crop_size, short_side)
        self.eval_spec = spec(eval_length, eval_stride, crop_size, short_side)
        self.test_spec = spec(eval_length, eval_stride, test_size, (test_size, test_size))

        self.classes: tuple[str, ...] = ()
        self.videos: dict[Split, tuple[Video, ...]] = {}

    @override
    def setup(self, stage: str) -> None:
        if self.videos:
            return
        found = self._read_list()
        self.classes = found.classes
        # Decode first: which videos there are must not depend on the stage, or the split would.
        usable = self._without_broken(found.splits)
        if "val" not in usable and usable.get("train"):
            train = usable["train"]
            kept, cut = internal_split(
                [video.label for video in train],
                [video.group for video in train],
                size=self.val_size,
                seed=self.split_seed,
            )
            usable["train"], usable["val"] = tuple(train[i] for i in kept), tuple(train[i] for i in cut)
        if self.train_on_validation:
            usable["train"] = (*usable["train"], *usable["val"])
        self.videos = usable

    @override
    def train_dataloader(self) -> Loader:
        videos = self._split("train")
        num_devices = self.trainer.world_size if self.trainer else 1
        return self._loader(
            TrainingClips(videos, self.train_spec),
            batch_size=self.batch_size,
            shuffle=True,
            # A last batch of one or two clips would upset the statistics of batch normalisation.
            drop_last=len(videos) // num_devices > self.batch_size,
        )

    @override
    def val_dataloader(self) -> Loader:
        return self._loader(EvaluationClips(self._split("val"), self.eval_spec), batch_size=self.eval_batch_size)

    @override
    def test_dataloader(self) -> Loader:
        views = TestViews(
            self._split("test"), self.test_spec, num_clips=self.num_test_clips, num_crops=self.num_test_crops
        )
        return self._loader(views, batch_size=1)

    @override
    def predict_dataloader(self) -> Loader:
        return self.test_dataloader()

    def _read_list(self) -> VideoList:
        if self.annotations is None:
            return read_folders(self.root)
        return read_csv(os.path.join(self.root, self.annotations), self.root, group_column=self.group_column)

    def _without_broken(self, splits: dict[Split, tuple[Video, ...]]) -> dict[Split, tuple[Video, ...]]:
        paths = [video.path for videos in splits.values() for video in videos]
        errors = store.scan(paths, keep_pixels=self.cache)
        if errors and self.on_error == "raise":
            more = f" ({len(errors) - 1} more of {len(paths)} videos are broken)" if len(errors) > 1 else ""
            errors[0].reason += f'{more}. Mend or delete it, or set `on_error="skip"` to leave such videos out'
            raise errors[0]
        if errors:
            named = "; ".join(map(str, errors[:5])) + ("; …" if len(errors) > 5 else "")
            rank_zero_warn(f"{len(errors)} of {len(paths)} videos cannot be decoded and are left out: {named}")
        broken = {error.path for error in errors}
        return {split: tuple(v for v in videos if v.path not in broken) for split, videos in splits.items()}

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
