"""Miniature data sets, each in the layout that its archives have when unpacked: two classes, some videos of each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

Writer = Callable[..., Any]
SIZE = (80, 64)  # px, width and height
CLASSES = ("jump", "run")
TRAIN, TEST = 6, 2  # videos per class


def ucf101(root: Path, write: Writer) -> dict[str, int]:
    names = {"jump": "HandstandPushups", "run": "Archery"}
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\r\n2 HandstandPushups\r\n", newline="")
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for label, name in enumerate(sorted(names.values()), start=1):
        for number in range(1, TRAIN + TEST + 1):
            clip = f"v_{name.replace('stand', 'Stand')}_g{number:02d}_c01.avi"
            write(root / "UCF-101" / name / clip, size=SIZE)
            if number > TEST:
                lines["train"].append(f"{name}/{clip} {label}")
            else:
                lines["test"].append(f"{name}/{clip}")
    for split, listed in lines.items():
        (lists / f"{split}list01.txt").write_text("\r\n".join(listed) + "\r\n", newline="")
    return {"train": 2 * TRAIN, "test": 2 * TEST}


def hmdb51(root: Path, write: Writer) -> dict[str, int]:
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir()
    for name in CLASSES:
        lines = []
        for number in range(TRAIN + TEST + 1):
            clip = f"#Film_{number}_{name}_(2007)_{name}_u_nm_np1_ba_goo_0.avi"
            write(root / "hmdb51_org" / name / clip, size=SIZE)
            lines.append(f"{clip} {1 if number < TRAIN else 2 if number < TRAIN + TEST else 0} \n")
        (lists / f"{name}_test_split1.txt").write_text("".join(lines))
    return {"train": 2 * TRAIN, "test": 2 * TEST}


def kinetics400(root: Path, write: Writer) -> dict[str, int]:
    return _kinetics(root, write, 400, quoted=True)


def kinetics600(root: Path, write: Writer) -> dict[str, int]:
    return _kinetics(root, write, 600, quoted=False)


def _kinetics(root: Path, write: Writer, number: int, *, quoted: bool) -> dict[str, int]:
    for split, count in (("train", TRAIN), ("val", TEST)):
        lines = ["label,youtube_id,time_start,time_end,split" + (",is_cc" if quoted else "")]
        for name in ("air drumming", "abseiling"):
            for clip in range(count):
                video = f"-{split}{name[1]}-{clip // 2}"  # two clips of each video
                label = f'"{name}"' if quoted and " " in name else name
                lines.append(f"{label},{video},{clip * 10},{clip * 10 + 10},{split}" + (",0" if quoted else ""))
                write(root / split / name / f"{video}_{clip * 10:06d}_{clip * 10 + 10:06d}.mp4", size=SIZE)
        (root / f"kinetics-{number}_{split}.csv").write_text("\n".join(lines) + "\n")
    return {"train": 2 * TRAIN, "test": 2 * TEST}


def something_v1(root: Path, write: Writer) -> dict[str, int]:
    labels = ["Turning something upside down", "Holding something"]
    (root / "something-something-v1-labels.csv").write_text("\n".join(labels) + "\n")
    number = 0
    for split, count in (("train", TRAIN), ("validation", TEST)):
        lines = []
        for label in labels:
            for _ in range(count):
                number += 1
                lines.append(f"{number};{label}")
                folder = root / "20bn-something-something-v1" / str(number)
                folder.mkdir(parents=True)
                for frame in range(1, 21):
                    Image.new("RGB", SIZE, (10 * frame,) * 3).save(folder / f"{frame:05d}.jpg")
        (root / f"something-something-v1-{split}.csv").write_text("\n".join(lines) + "\n")
    return {"train": 2 * TRAIN, "test": 2 * TEST}


def something_v2(root: Path, write: Writer) -> dict[str, int]:
    templates = {"Holding [something] next to [something]": "1", "Putting [something]": "0"}
    labels = {template.replace("[", "").replace("]", ""): label for template, label in templates.items()}
    (root / "something-something-v2-labels.json").write_text(json.dumps(labels))
    number = 0
    for split, count in (("train", TRAIN), ("validation", TEST)):
        entries = []
        for template in templates:
            for _ in range(count):
                number += 1
                entries.append({"id": str(number), "label": "x", "template": template, "placeholders": ["x"]})
                write(root / "20bn-something-something-v2" / f"{number}.webm", size=SIZE)
        (root / f"something-something-v2-{split}.json").write_text(json.dumps(entries))
    return {"train": 2 * TRAIN, "test": 2 * TEST}


def activitynet(root: Path, write: Writer) -> dict[str, int]:
    database: dict[str, Any] = {}
    for subset, count in (("training", TRAIN), ("validation", TEST), ("testing", 1)):
        for name in CLASSES:
            for number in range(count):
                video = f"{subset[:2]}-{name}_{number:02d}"
                segments = [{"segment": [0.1, 0.6], "label": name}] if subset != "testing" else []
                database[video] = {"duration": 0.8, "subset": subset, "annotations": segments}
                if segments:
                    write(root / "videos" / subset / f"v_{video}.{'mkv' if number % 2 else 'mp4'}", size=SIZE)
    (root / "activity_net.v1-3.min.json").write_text(json.dumps({"database": database, "version": "VERSION 1.3"}))
    return {"train": 2 * TRAIN, "test": 2 * TEST}


TREES = {
    "activitynet": activitynet,
    "hmdb51": hmdb51,
    "kinetics400": kinetics400,
    "kinetics600": kinetics600,
    "something_v1": something_v1,
    "something_v2": something_v2,
    "ucf101": ucf101,
}
