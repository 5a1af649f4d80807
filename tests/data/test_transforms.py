import pytest
import torch

from lightning_opplan.data.transforms import Augmentation, centre_crop, normalise, resize_short_side, three_crops


def ramp(height, width, frames=2):
    """Frames whose value is the column in the first channel and the row in the second."""
    columns = torch.arange(width).expand(height, width)
    rows = torch.arange(height)[:, None].expand(height, width)
    picture = torch.stack([columns, rows, torch.zeros_like(rows)]).to(torch.uint8)
    return picture.expand(frames, -1, -1, -1).clone()


def test_short_side_keeps_the_shape():
    assert resize_short_side(ramp(40, 60), 20).shape == (2, 3, 20, 30)
    same = ramp(40, 60)
    assert resize_short_side(same, 40) is same


def test_centre_crop_takes_the_middle():
    crop = centre_crop(ramp(40, 60), short_side=40, crop_size=20)
    assert crop[0, 0, 0].tolist() == list(range(20, 40))
    assert crop[0, 1, :, 0].tolist() == list(range(10, 30))


@pytest.mark.parametrize(("height", "width", "channel"), [(32, 62, 0), (62, 32, 1)], ids=["wide", "tall"])
def test_three_crops_lie_along_the_longer_side(height, width, channel):
    crops = three_crops(ramp(height, width), short_side=32, crop_size=32)
    assert [int(crop[0, channel].min()) for crop in crops] == [0, 15, 30]
    assert all(crop.shape == (2, 3, 32, 32) for crop in crops)


def test_augmentation_is_one_draw_for_all_frames():
    torch.manual_seed(0)
    for _ in range(5):
        frames = Augmentation.draw(short_side=(32, 48), crop_size=24, flip=True)(ramp(40, 60, frames=4))
        assert frames.shape == (4, 3, 24, 24)
        assert all(torch.equal(frames[0], frame) for frame in frames)


def test_flips_happen_to_half_of_the_clips_or_none():
    torch.manual_seed(0)

    def share(flip):
        flipped = 0
        for _ in range(200):
            row = Augmentation.draw(short_side=(24, 24), crop_size=24, flip=flip)(ramp(24, 24))[0, 0, 0]
            flipped += bool(row[0] > row[-1])
        return flipped / 200

    assert share(False) == 0
    assert 0.4 < share(True) < 0.6


def test_normalisation_and_layout():
    clip = normalise(torch.full((5, 3, 4, 4), 255, dtype=torch.uint8))
    assert clip.shape == (3, 5, 4, 4)
    expected = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(clip[:, 0, 0, 0], expected)
