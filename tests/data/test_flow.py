import numpy as np
import pytest
import torch
from PIL import Image

from lightning_opplan.data import VideoDataModule
from lightning_opplan.data.clips import TrainingClips
from lightning_opplan.data.flow import BOUND, FLOW_MEAN, FLOW_STD, flow_method, quantised, tv_l1, unquantised
from lightning_opplan.data.frames import memory
from lightning_opplan.data.images import index_pictures, read_pictures
from lightning_opplan.data.transforms import mirrored
from lightning_opplan.data.video_files import VideoError


def read_flo(file):
    """Middlebury's format, by its description."""
    width, height = np.fromfile(file, np.int32, 2, offset=4)
    return np.fromfile(file, np.float32, offset=12).reshape(height, width, 2).transpose(2, 0, 1)


def picture(file):
    return np.array(Image.open(file).convert("RGB"))


def write_pairs(folder, names, size=(8, 6), right=200, down=100):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("L", size, right if name.lstrip("flow_").startswith(("x", "u")) else down).save(folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "expected"), [(0, 1.76), (1, 1.44)])
def test_tv_l1_errs_as_scikit_image_does(real_data, pair, expected):
    """Of two pairs of FlyingChairs whose true flow is known."""
    folder = real_data / "flow" / "flyingchairs"
    found = tv_l1(picture(folder / f"{pair}img0.ppm"), picture(folder / f"{pair}img1.ppm"))
    error = np.hypot(*(found - read_flo(folder / f"{pair}flow.flo"))).mean()
    assert error == pytest.approx(expected, rel=0.05)


@pytest.mark.slow
def test_flow_goes_from_a_frame_to_the_next_one(real_data):
    """As another tool's flow of the same clip: red to the right, green down, both at no lag."""
    folder = real_data / "flow" / "i3d"
    name = "v_CricketShot_g04_c01"
    pairs = range(42, 67, 8)
    needed = [number for pair in pairs for number in (pair, pair + 1)]
    frames = memory.clip_frames(str(folder / f"{name}_rgb.gif"), needed).permute(0, 2, 3, 1).numpy()
    found = np.stack([tv_l1(*frames[place : place + 2]) for place in range(0, len(frames), 2)])
    alike = []
    for lag in (-1, 0, 1):
        indices = [pair + lag for pair in pairs]
        others = unquantised(memory.clip_frames(str(folder / f"{name}_flow.gif"), indices, modality="flow").numpy())
        alike.append([np.corrcoef(found[:, each].ravel(), others[:, each].ravel())[0, 1] for each in range(2)])
    before, same, after = np.array(alike)
    assert (same > [0.85, 0.7]).all()
    assert (same > np.maximum(before, after) + 0.05).all()


@pytest.mark.slow
def test_flow_of_the_mirrored_clip_is_the_mirrored_flow(real_data):
    folder = real_data / "flow" / "rubberwhale"
    frame, following = picture(folder / "rubberwhale1.png"), picture(folder / "rubberwhale2.png")
    grey = torch.from_numpy(quantised(tv_l1(frame, following)))[None]
    found = unquantised(mirrored(grey, "flow")[0].numpy())
    expected = tv_l1(frame[:, ::-1], following[:, ::-1])
    assert np.abs(found - expected).mean() < 0.1
    assert np.abs(unquantised(mirrored(grey)[0].numpy()) - expected).mean() > 0.5


def test_grey_is_flow_and_back():
    flow = np.array([[[-30.0, -20, 0, 5.3, 20, 99]], [[0.0, 0.1, -0.1, 7, -7, 1]]], dtype=np.float32)
    grey = quantised(flow)
    assert grey[0, 0].tolist() == [0, 0, 128, 161, 255, 255]
    assert np.abs(unquantised(grey) - np.clip(flow, -BOUND, BOUND)).max() <= BOUND / 255 + 1e-5


@pytest.mark.parametrize(
    "names",
    [
        ("x_00001.jpg", "y_00001.jpg", "x_00002.jpg", "y_00002.jpg"),
        ("flow_x_00001.jpg", "flow_y_00001.jpg", "flow_x_00002.jpg", "flow_y_00002.jpg"),
        ("u0001.png", "v0001.png", "u0002.png", "v0002.png"),
        ("X-1.jpeg", "Y-1.jpeg", "X-2.jpeg", "Y-2.jpeg"),
    ],
    ids=["opplan", "dense_flow", "tsn", "dashes"],
)
def test_pairs_are_read_as_any_tool_names_them(tmp_path, names):
    folder = tmp_path / "video"
    folder.mkdir()
    for number, name in enumerate(names):
        Image.new("L", (8, 6), 10 * number).save(folder / name, quality=100)
    index = index_pictures(str(folder), "flow")
    assert (index.num_frames, index.height, index.width) == (2, 6, 8)
    frames = read_pictures(str(folder), [1, 0], "flow")
    assert frames.shape == (2, 2, 6, 8)
    assert frames[:, :, 0, 0].tolist() == [[20, 30], [0, 10]]
    with pytest.raises(VideoError, match=r"it holds optical flow \(\S+\), no frames: set `modality` to 'flow'"):
        index_pictures(str(folder))


def test_one_folder_may_hold_frames_and_flow(real_data):
    folder = str(real_data / "flow" / "mmaction2_tvl1")
    assert index_pictures(folder).num_frames == 6
    assert index_pictures(folder, "flow").num_frames == 5
    assert read_pictures(folder, [0]).shape[1] == 3
    assert read_pictures(folder, [0], "flow").shape[1] == 2
    assert memory.scan([folder]) == memory.scan([folder], modality="flow") == []
    assert (memory.frame_index(folder).num_frames, memory.frame_index(folder, "flow").num_frames) == (6, 5)


def test_an_x_of_its_own_is_a_frame(tmp_path):
    for number in range(3):
        Image.new("RGB", (8, 6)).save(tmp_path / f"x_{number}.png")
    assert index_pictures(str(tmp_path)).num_frames == 3


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["1.jpg", "2.jpg"], r"there are no pairs of optical flow \(x_00001.jpg, y_00001.jpg\)"),
        (["x_1.jpg", "x_2.jpg", "y_1.jpg"], r"picture x_2.jpg has no partner"),
        (["x_1.jpg", "y_1.jpg", "y_2.jpg"], r"picture y_2.jpg has no partner"),
        (["x_1.jpg", "y_1.jpg", "x_3.jpg", "y_3.jpg"], r"picture x_2.jpg is missing"),
    ],
)
def test_what_is_wrong_with_pairs_is_named(tmp_path, names, sentence):
    write_pairs(tmp_path, names)
    with pytest.raises(VideoError, match=sentence):
        index_pictures(str(tmp_path), "flow")


def test_a_video_is_no_flow(write_video, tmp_path):
    file = str(write_video(tmp_path / "a.mkv"))
    (error,) = memory.scan([file], modality="flow")
    assert "it is no optical flow, which comes as pairs of pictures or as a GIF" in str(error)


@pytest.fixture
def videos_and_flow(tmp_path, write_video):
    """A set of videos, and their flow in another folder, brighter to the right at its left side."""
    for label in ("jump", "run"):
        for number in range(5):
            write_video(tmp_path / "rgb" / label / f"{number}.mkv", num_frames=9)
            folder = tmp_path / "flow" / label / str(number)
            folder.mkdir(parents=True)
            ramp = np.tile(np.linspace(200, 140, 32, dtype=np.uint8), (24, 1))
            for frame in range(1, 9):
                Image.fromarray(ramp).save(folder / f"x_{frame:05d}.png")
                Image.new("L", (32, 24), 100).save(folder / f"y_{frame:05d}.png")
    return tmp_path


def flow_data(folder, **options):
    return VideoDataModule(
        root=str(folder / "rgb"), modality="flow", flow_dir=str(folder / "flow"), clip_length=4, crop_size=24,
        short_side=(24, 24), batch_size=2, **options,
    )  # fmt: skip


def test_a_set_is_trained_on_its_flow(videos_and_flow):
    data = flow_data(videos_and_flow, num_test_clips=2)
    rgb = VideoDataModule(root=str(videos_and_flow / "rgb"), crop_size=24, short_side=(24, 24))
    data.setup("fit")
    rgb.setup("fit")
    assert [v.name for v in data.videos["val"]] == [v.name for v in rgb.videos["val"]]
    clips, _ = next(iter(data.train_dataloader()))
    assert clips.shape == (2, 2, 4, 24, 24)
    down = clips[:, 1] * FLOW_STD[1] + FLOW_MEAN[1]
    assert torch.allclose(down, torch.full_like(down, 100 / 255), atol=1e-4)
    data.videos["test"] = data.videos["val"]
    views, _ = next(iter(data.test_dataloader()))
    assert views.shape == (1, 6, 2, 4, 24, 24)


def test_mirrored_clips_go_the_other_way(videos_and_flow):
    data = flow_data(videos_and_flow)
    data.setup("fit")
    clips = TrainingClips(data.videos["train"], data.train_spec)
    seen = set()
    for seed in range(20):
        right = clips.clip(clips.videos[0], torch.Generator().manual_seed(seed))[0] * FLOW_STD[0] + FLOW_MEAN[0]
        is_left = bool((right < 0.5).all())
        assert is_left or bool((right > 0.5).all())
        # The fast side is at the left; in the mirror at the right.
        fast, slow = (right[..., -1], right[..., 0]) if is_left else (right[..., 0], right[..., -1])
        assert bool(((fast - 0.5).abs() > (slow - 0.5).abs()).all())
        seen.add(is_left)
    assert seen == {True, False}


def test_flow_kept_in_memory_is_the_same(videos_and_flow):
    data, kept = flow_data(videos_and_flow), flow_data(videos_and_flow, cache=True)
    for each in (data, kept):
        each.setup("fit")
    first, second = (
        TrainingClips(each.videos["train"], each.train_spec).clip(
            each.videos["train"][0], torch.Generator().manual_seed(0)
        )
        for each in (data, kept)
    )
    assert torch.equal(first, second)


def test_missing_flow_is_named(videos_and_flow):
    for file in (videos_and_flow / "flow" / "run" / "3").iterdir():
        file.unlink()
    (videos_and_flow / "flow" / "run" / "3").rmdir()
    with pytest.raises(
        FileNotFoundError, match=r"1 of \d+ \w+ videos are not below .*flow.*Add them with `opplan flow`"
    ):
        flow_data(videos_and_flow).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"`flow_dir` must be the folder of the videos, got .*nowhere"):
        VideoDataModule(root=str(videos_and_flow / "rgb"), modality="flow", flow_dir="nowhere").setup("fit")


def test_raft_says_which_weights_to_bring(monkeypatch):
    def refuse(*_args, **_options):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(
        OSError, match=r"weights of RAFT cannot be downloaded \(no network\). Bring https://\S+ and name"
    ):
        flow_method("raft")


def test_raft_finds_flow_of_any_size(tmp_path):
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(0)
    torch.save(raft_large(weights=None).state_dict(), tmp_path / "raft.pth")
    estimate = flow_method("raft", weights=str(tmp_path / "raft.pth"), device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (2, 100, 132, 3), dtype=np.uint8)
    assert estimate(*frames).shape == (2, 100, 132)
