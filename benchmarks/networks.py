"""Speed and memory of the networks: formats, precisions and compilation against the plainest version of each.

    python benchmarks/networks.py                                      # DG-P3D ResNet-50 as far as a CPU goes
    python benchmarks/networks.py --write                              # which memory format the package takes here
    python benchmarks/networks.py --networks '*_resnet50' --clips 16x224 64x224 --batch 16 --device cuda

For every network and clip, each variant takes turns with the plain version (eager, float32, channels first, SGD as it
comes) in the same process: forward passes without gradients, and training steps of forward, backward, clipping and
SGD. Ratios are medians over the turns, so that a machine that slows down slows both; clips/s are of the fastest turn.
Memory is the peak in a training step with what the network and its optimizer hold. Data are random (seed 0), loading
is left out. bfloat16 is autocast; variants other than the plain one train as `VideoClassifier` does, with fused SGD in
float32. On CUDA, TF32 is allowed, and one bfloat16 convolution is compared with float64 first.

With --write the two memory formats take turns with one another, both as `VideoClassifier` trains, and the ratios go to
the table by which it chooses, in place of what this device had there.
"""

import argparse
import ctypes
import gc
import json
import platform
import statistics
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lightning_opplan import get_model, list_models
from lightning_opplan.modules import memory_format

NUM_CLASSES = 400
TABLE = Path(memory_format.__file__).with_name("memory_formats.json")


@dataclass(frozen=True)
class Variant:
    bf16: bool
    compiled: bool
    channels_last: bool
    checkpointing: bool = False

    def __str__(self):
        words = ["bf16" if self.bf16 else "fp32", "compiled" if self.compiled else "eager"]
        words.append("last" if self.channels_last else "first")
        return " ".join([*words, *(["checkpointing"] if self.checkpointing else [])])


PLAIN = Variant(bf16=False, compiled=False, channels_last=False)


class Runner:
    """A network of one variant that can be timed."""

    def __init__(self, name, variant, clips, labels, *, is_plain=False):
        torch.manual_seed(0)
        self.device, self.variant, self.clips, self.labels = clips.device, variant, clips, labels
        self.network = get_model(name, num_classes=NUM_CLASSES, activation_checkpointing=variant.checkpointing)
        self.network.to(self.device)
        if variant.channels_last:
            self.network.to_channels_last()
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), 1e-4, momentum=0.9, nesterov=True, weight_decay=1e-4,
            fused=True if not is_plain and not variant.bf16 else None,
        )  # fmt: skip
        self.heads = self.network.forward_heads
        if variant.compiled:
            self.heads = torch.compile(self.heads, fullgraph=True, dynamic=False)

    def scores(self):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.variant.bf16):
            return self.heads(self.clips)

    def forward(self):
        self.network.eval()
        with torch.no_grad():
            self.scores()

    def train(self):
        self.network.train()
        self.optimizer.zero_grad()
        sum(functional.cross_entropy(scores, self.labels) for scores in self.scores()).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 40.0)
        self.optimizer.step()

    def seconds(self, step):
        synchronise(self.device)
        began = time.perf_counter()
        step()
        synchronise(self.device)
        return time.perf_counter() - began

    def held(self):
        tensors = [*self.network.parameters(), *self.network.buffers()]
        tensors += [value for state in self.optimizer.state.values() for value in state.values() if value is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def peak(self):
        """GiB at the peak of a training step."""
        self.optimizer.zero_grad()
        before = resident(self.device)
        reset_peak(self.device)
        self.train()
        synchronise(self.device)
        return (self.held() + peak(self.device) - before) / 2**30


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def process_status(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def resident(device):
    gc.collect()
    if device.type == "cpu":
        ctypes.CDLL(None).malloc_trim(0)  # what was freed, but is kept for later, would count as resident (glibc)
    return torch.cuda.memory_allocated() if device.type == "cuda" else process_status("VmRSS")


def reset_peak(device):
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident set starts anew (Linux)


def peak(device):
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else process_status("VmHWM")


def take_turns(plain, other, step, seconds):
    """Time of the fastest turn of the other, and the median of plain over other."""
    for runner in (plain, other):  # compile, and warm up
        runner.seconds(getattr(runner, step))
    pairs = []
    ends = time.perf_counter() + seconds
    while not pairs or time.perf_counter() < ends:
        pairs.append([runner.seconds(getattr(runner, step)) for runner in (plain, other)])
    return min(mine for _, mine in pairs), statistics.median(theirs / mine for theirs, mine in pairs), len(pairs)


def variants(options):
    formats = [False, True]
    found = [Variant(bf16, compiled, last) for bf16 in (False, True) for compiled in (False, True) for last in formats]
    if options.checkpointing:
        found += [Variant(bf16, False, True, checkpointing=True) for bf16 in (False, True)]
    return [variant for variant in found if variant == PLAIN or not is_skipped(variant, options)]


def is_skipped(variant, options):
    return ("bf16" if variant.bf16 else "fp32") in options.skip or (variant.compiled and "compiled" in options.skip)


def figures(plain, runner, options):
    forward, forward_ratio, _ = take_turns(plain, runner, "forward", options.seconds / 3)
    training, training_ratio, turns = take_turns(plain, runner, "train", options.seconds)
    return [
        f"{options.batch / forward:.2f}",
        f"{forward_ratio:.2f}×",
        f"{options.batch / training:.2f}",
        f"{training_ratio:.2f}×",
        f"{runner.peak():.2f}",
        str(turns),
    ]


def measure(name, frames, size, options, console):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = get_model(name, num_classes=NUM_CLASSES).eval()
        network(torch.empty(1, 3, frames, size, size))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    title = f"{name}, {options.batch} × {frames} × {size}²: {parameters:,} parameters, "
    table = Table(title=title + f"{counter.get_total_flops() / 2e9:.2f} GMACs per clip")
    table.add_column("variant")
    for column in ("forward clips/s", "ratio", "training clips/s", "ratio", "memory GiB", "turns"):
        table.add_column(column, justify="right")

    clips, labels = samples(frames, size, options)
    plain = Runner(name, PLAIN, clips, labels, is_plain=True)
    for variant in variants(options):
        runner = Runner(name, variant, clips, labels) if variant != PLAIN else plain
        try:
            cells = figures(plain, runner, options)
        except torch.OutOfMemoryError:
            cells = ["out of memory"]
        table.add_row(str(variant), *cells)
        del runner
        torch.compiler.reset()
        gc.collect()
        if clips.is_cuda:
            torch.cuda.empty_cache()
    console.print(table)


def samples(frames, size, options):
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(options.batch, 3, frames, size, size, generator=generator).to(options.device)
    labels = torch.randint(NUM_CLASSES, (options.batch,), generator=generator).to(options.device)
    return clips, labels


def write_formats(name, frames, size, options, console):
    """Measure how many times as quick channels last are, and put it into the table."""
    clips, labels = samples(frames, size, options)
    device = memory_format.device_name(options.device)
    rows = []
    for bf16, compiled in product((False, True), repeat=2):
        both = [Variant(bf16, compiled, is_last) for is_last in (False, True)]
        if is_skipped(both[0], options):
            continue
        first, last = (Runner(name, variant, clips, labels) for variant in both)
        for mode, step in ("scoring", "forward"), ("training", "train"):
            _, ratio, turns = take_turns(first, last, step, options.seconds)
            rows.append(
                {
                    "device": device, "precision": "bfloat16" if bf16 else "float32", "mode": mode,
                    "compiled": compiled, "ratio": round(ratio, 2), "turns": turns, "network": name,
                    "clips": f"{options.batch} x {frames}x{size}", "torch": torch.__version__,
                }
            )  # fmt: skip
            console.print(rows[-1])
        del first, last
        torch.compiler.reset()
        gc.collect()
    measured = {(row["device"], row["precision"], row["compiled"]) for row in rows}
    kept = [
        row
        for row in json.loads(TABLE.read_text())
        if (row["device"], row["precision"], row["compiled"]) not in measured
    ]
    TABLE.write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in [*kept, *rows]) + "\n]\n")


def check_bf16(console):
    """Compare a bfloat16 convolution with float64: some releases of cuDNN had slow ones, and one a wrong one."""
    torch.manual_seed(0)
    clips = torch.randn(2, 64, 8, 28, 28, device="cuda").to(memory_format=torch.channels_last_3d)
    kernel = torch.randn(64, 64, 3, 3, 3, device="cuda") / (64 * 27) ** 0.5
    exact = functional.conv3d(clips.bfloat16().double(), kernel.bfloat16().double(), padding=1)
    found = functional.conv3d(clips.bfloat16(), kernel.bfloat16(), padding=1).double()
    error = float((found - exact).norm() / exact.norm())
    console.print(f"bfloat16 3×3×3 convolution: {error:.1e} off float64 ({'right' if error < 0.01 else 'WRONG'})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["dg_p3d_resnet50"], help="Names or patterns.")
    parser.add_argument("--clips", nargs="+", default=["16x112"], help="Frames and crop in px.")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", type=torch.device)
    parser.add_argument("--seconds", type=float, default=20.0, help="Time for the training steps of each variant.")
    parser.add_argument("--skip", nargs="*", default=[], choices=["fp32", "bf16", "compiled"])
    parser.add_argument("--checkpointing", action="store_true", help="Add variants with activation checkpointing.")
    parser.add_argument("--write", action="store_true", help="Measure the memory formats, and keep which is quicker.")
    options = parser.parse_args()

    console = Console(width=110)
    where = torch.cuda.get_device_name() if options.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    capability = torch.backends.cpu.get_cpu_capability()
    console.print(f"{platform.machine()} ({capability}), {where}, Python {platform.python_version()}, ", end="")
    console.print(f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, seed 0")
    if options.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        check_bf16(console)
    names = [name for pattern in options.networks for name in list_models(pattern)]
    if not names:
        parser.error(f"no network matches {' '.join(options.networks)}; there are {', '.join(list_models())}")
    for name in names:
        for clip in options.clips:
            frames, size = map(int, clip.split("x"))
            (write_formats if options.write else measure)(name, frames, size, options, console)


if __name__ == "__main__":
    main()
