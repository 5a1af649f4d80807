"""How fast clips come out of video files, beside torchcodec, decord and plain decoding.

    pip install torchcodec decord    # optional: what is not installed is left out
    python benchmarks/decoding.py --seconds 3

Draws videos of 300 frames, encodes them to H.264 and MPEG-4 (Xvid), and cuts clips of uniform and consecutive frames
at a short side of 256 px, in turns, one thread each. Ratios are to plain decoding with PyAV from the first frame on,
and scaling with torchvision afterwards. The seed is 0.
"""

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional

from lightning_opplan.data.clips import ClipSpec, TrainingClips
from lightning_opplan.data.decoding import decode_frames
from lightning_opplan.data.frames.pixel_files import write_pixels
from lightning_opplan.data.frames.sources import Source
from lightning_opplan.data.indexing import build_index
from lightning_opplan.data.lists import Video
from lightning_opplan.data.sampling import clip_indices
from lightning_opplan.data.transforms import scaled_size
from lightning_opplan.models import get_model

NUM_FRAMES = 300
SHORT_SIDE = 256
Method = Callable[[str, list[int]], Any]


def draw(width: int, height: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """A textured ground that pans, noise, and discs that move across it."""
    small = generator.uniform(0, 255, (3, 24, 32)).astype(np.float32)
    large = functional.resize(torch.from_numpy(small), [height * 2, width * 2], antialias=True).numpy()
    ys, xs = np.mgrid[:height, :width]
    places, speeds = generator.uniform(0, height, (6, 2)), generator.uniform(-3, 3, (6, 2))
    colours = generator.uniform(0, 255, (6, 3))
    for number in range(NUM_FRAMES):
        x, y = int(width / 2 * (1 + np.sin(number / 50))), int(height / 2 * (1 + np.cos(number / 70)))
        picture = large[:, y : y + height, x : x + width].transpose(1, 2, 0).copy()
        for place, speed, colour in zip(places, speeds, colours, strict=True):
            cy, cx = (place + number * speed) % (height, width)
            picture[(xs - cx) ** 2 + (ys - cy) ** 2 < (height / 10) ** 2] = colour
        picture += generator.normal(0, 6, picture.shape)
        yield np.clip(picture, 0, 255).astype(np.uint8)


def encode(file: Path, width: int, height: int, codec: str, seed: int) -> str:
    options = {"libx264": {"crf": "23", "preset": "medium"}, "mpeg4": {"bf": "2", "qscale": "4", "g": "250"}}[codec]
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(30), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec == "mpeg4":
            stream.codec_context.codec_tag = "XVID"
        for picture in draw(width, height, np.random.default_rng(seed)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return str(file)


def plain(path: str, indices: list[int]) -> Tensor:
    last, frames = max(indices), []
    with av.open(path) as container:
        container.streams.video[0].thread_type = "SLICE"
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            frames.append(frame.to_ndarray(format="rgb24"))
            if number == last:
                break
    chosen = torch.from_numpy(np.stack([frames[index] for index in indices])).permute(0, 3, 1, 2)
    return functional.resize(chosen, [SHORT_SIDE], antialias=True)


def methods(paths: list[str]) -> dict[str, Method]:
    indices = {path: build_index(path) for path in paths}
    found: dict[str, Method] = {
        "plain PyAV, then resize": plain,
        "lightning_opplan": lambda path, wanted: decode_frames(
            path, wanted, index=indices[path], short_side=SHORT_SIDE
        ),
    }
    sizes = {path: scaled_size(index.height, index.width, SHORT_SIDE) for path, index in indices.items()}
    try:
        from torchcodec.decoders import VideoDecoder
        from torchcodec.transforms import Resize

        for mode in ("exact", "approximate"):
            found[f"torchcodec ({mode})"] = lambda path, wanted, mode=mode: (
                VideoDecoder(path, num_ffmpeg_threads=1, seek_mode=mode, transforms=[Resize(sizes[path])])
                .get_frames_at(wanted)
                .data
            )
    except (ImportError, RuntimeError) as error:
        print(f"torchcodec is left out: {str(error).splitlines()[0]}")
    try:
        import decord

        found["decord"] = lambda path, wanted: (
            decord.VideoReader(path, height=sizes[path][0], width=sizes[path][1], num_threads=1)
            .get_batch(wanted)
            .asnumpy()
        )
    except (ImportError, OSError) as error:
        print(f"decord is left out: {str(error).splitlines()[0]}")
    return found


def compare(console: Console, paths: dict[str, str], seconds: float, lengths: list[int]) -> None:
    table = Table(title="Clips per second at a short side of 256 px, and ratio to plain decoding")
    ways = methods(list(paths.values()))
    for heading in ("video", "sampling", "frames", *ways):
        table.add_column(heading, justify="left" if heading in ("video", "sampling") else "right")
    for name, path in paths.items():
        for sampling in ("consecutive", "uniform"):
            for length in lengths:
                chosen = random.Random(0).randint
                times: dict[str, list[float]] = {way: [] for way in ways}
                end = time.perf_counter() + seconds * len(ways)
                while time.perf_counter() < end or len(times["lightning_opplan"]) < 5:
                    wanted = clip_indices(NUM_FRAMES, length, sampling=sampling, offset=partial(chosen, 0))
                    for way, method in ways.items():
                        begin = time.perf_counter()
                        method(path, wanted)
                        times[way].append(time.perf_counter() - begin)
                rates = {way: 1 / statistics.mean(taken) for way, taken in times.items()}
                base = rates["plain PyAV, then resize"]
                cells = [f"{rate:.1f} ({rate / base:.2f}×)" for rate in rates.values()]
                table.add_row(name, sampling, str(length), *cells)
    console.print(table)


def training_samples(console: Console, path: str, folder: Path, seconds: float) -> None:
    """A training sample of 16 frames, augmented and normalised: from the file and from decoded frames on disk."""
    job = {Path(path).name: lambda: decode_frames(path, short_side=SHORT_SIDE)}
    list(write_pixels(folder / "pixels", job, short_side=SHORT_SIDE))
    sources = {"file": Source(), "cache": Source(cache_dir=str(folder / "pixels"))}
    table = Table(title="Training samples per second, 16 frames, 224 px")
    for heading in ("sampling", *sources, "ratio"):
        table.add_column(heading, justify="right")
    for sampling in ("consecutive", "uniform"):
        datasets = {
            name: TrainingClips(
                [Video(path=path, name=Path(path).name, label=0)],
                ClipSpec(
                    sampling=sampling, clip_length=16, frame_stride=1, short_video="loop", crop_size=224,
                    short_side=(256, 340), flip=True, source=source,
                ),
            )
            for name, source in sources.items()
        }  # fmt: skip
        times: dict[str, list[float]] = {name: [] for name in sources}
        end = time.perf_counter() + 2 * seconds
        while time.perf_counter() < end:
            for name, dataset in datasets.items():
                begin = time.perf_counter()
                dataset[0]
                times[name].append(time.perf_counter() - begin)
        rates = {name: 1 / statistics.mean(taken[1:]) for name, taken in times.items()}
        ratio = f"{rates['cache'] / rates['file']:.1f}×"
        table.add_row(sampling, *(f"{rate:.1f}" for rate in rates.values()), ratio)
    console.print(table)


def waiting(console: Console, path: str, steps: int) -> None:
    """What share of a training loop's time goes by waiting for data, with one loader process."""
    spec = ClipSpec(
        sampling="uniform", clip_length=16, frame_stride=1, short_video="loop", crop_size=112, short_side=(128, 170)
    )
    clips = TrainingClips([Video(path=path, name=Path(path).name, label=0)] * (4 * steps), spec)
    network = get_model("dg_p3d_resnet18", num_classes=10).to_channels_last()
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    waited = trained = 0.0
    mark = time.perf_counter()
    for number, (batch, labels) in enumerate(DataLoader(clips, 4, num_workers=1)):
        loaded = time.perf_counter()
        loss = sum(torch.nn.functional.cross_entropy(scores, labels) for scores in network.forward_heads(batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        done = time.perf_counter()
        if number:  # the first batch has the start of the loader in it
            waited, trained = waited + loaded - mark, trained + done - loaded
        mark = done
    console.print(
        f"Waiting for data: {waited / (waited + trained):.1%} of a training of DG-P3D ResNet-18, 4 × 16 × 112²."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="Time for each method and row.")
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 32, 64], help="Frames of a clip.")
    parser.add_argument("--video", help="A file of your own for the training samples, in place of a drawn one.")
    parser.add_argument("--only-samples", action="store_true", help="Leave the comparison of decoders out.")
    parser.add_argument("--steps", type=int, default=20, help="Training steps for the share of waiting.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=170)
    console.print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, PyAV {av.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {
            f"{width}×{height} {label}": encode(folder / f"{width}{label}.{suffix}", width, height, codec, seed=0)
            for width, height in ((320, 240), (340, 256))
            for label, codec, suffix in (("H.264", "libx264", "mp4"), ("XVID", "mpeg4", "avi"))
        }
        if not options.only_samples:
            compare(console, paths, options.seconds, options.lengths)
        training_samples(console, options.video or paths["340×256 H.264"], folder, options.seconds)
        waiting(console, paths["340×256 H.264"], options.steps)


if __name__ == "__main__":
    main()
