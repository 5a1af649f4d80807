"""What several tests share."""

import json
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lightning_opplan.data.frames import memory
from tests.helpers import toy
from tests.helpers.scripted import PROJECT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in ("transformers", "accelerate") if find_spec(name) is None]
    skip = pytest.mark.skip(reason=f"not installed: {', '.join(missing)}")
    for item in items if missing else []:
        if item.get_closest_marker("transformers"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real curves and videos; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("OPPLAN_REAL_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data here: set OPPLAN_REAL_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def real_curves(real_data: Path) -> list[dict[str, Any]]:
    lines = (real_data / "curves" / "curves.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(autouse=True)
def _fresh_store(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("OPPLAN_CACHE", str(tmp_path_factory.mktemp("cache")))
    memory.forget()
    yield
    memory.forget()


VideoWriter = Callable[..., Path]


@pytest.fixture
def write_video() -> VideoWriter:
    """Write a lossless video whose frame number is its grey value, so that decoded frames compare exactly."""

    def write(file: Path, num_frames: int = 20, size: tuple[int, int] = (32, 24), rate: int = 25) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(file), "w") as container:
            if file.suffix == ".webm":
                stream = container.add_stream("libvpx-vp9", rate=rate, options={"lossless": "1"})
            else:
                stream = container.add_stream("libx264rgb", rate=rate, options={"crf": "0", "g": "6"})
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p" if file.suffix == ".webm" else "rgb24"
            for number in range(num_frames):
                picture = np.full((size[1], size[0], 3), number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        return file

    return write


@pytest.fixture(scope="session")
def _toy_search(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "run"
    toy.tuner(folder).search()
    return folder


@pytest.fixture
def searched(_toy_search, tmp_path_factory) -> Path:
    """Folder of the toy's search, finished; a copy for this test alone."""
    folder = tmp_path_factory.mktemp("searched") / "run"
    shutil.copytree(_toy_search, folder)
    return folder
