import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from lightning_opplan.data import ImageDataModule
from lightning_opplan.inputs import Preprocessing

COUNTS = {"train": 10, "test": 3}


@pytest.fixture
def root(tmp_path):
    for split, count in COUNTS.items():
        for label, name in enumerate(("calm", "wild")):
            for number in range(count):
                file = tmp_path / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (60, 40), (100 * label, 20 * number, 7)).save(file)
    return tmp_path


def module(root, **options):
    data = ImageDataModule(str(root), **{"crop_size": 24, "batch_size": 4, **options})
    data.setup("fit")
    return data


def test_batches_have_the_documented_shapes(root):
    data = module(root, eval_crop_size=32)
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 24, 24)
    assert type(images) is torch.Tensor
    assert next(iter(data.val_dataloader()))[0].shape == next(iter(data.test_dataloader()))[0].shape == (4, 3, 32, 32)
    assert set(labels.tolist()) <= {0, 1}
    assert data.classes == ("calm", "wild")
    assert data.input_shapes == {"training": (3, 24, 24), "validation": (3, 32, 32)}


def test_validation_set_is_as_large_as_the_test_set_and_apart_from_training(root):
    data = module(root)
    assert {split: len(images) for split, images in data.images.items()} == {"train": 14, "val": 6, "test": 6}
    train, val = (set(data.images[split].indices) for split in ("train", "val"))
    assert not train & val
    assert module(root).images["val"].indices == data.images["val"].indices
    assert len(module(root, train_on_validation=True).images["train"]) == 20


def test_evaluation_equals_torchvision_s_own_transforms(root):
    data = module(root, crop_size=None)
    data.adopt(Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5), crop_size=20, short_side=25))
    picture = Image.effect_noise((60, 40), 50).convert("RGB")
    small = v2.functional.center_crop(v2.functional.resize(v2.functional.pil_to_tensor(picture), [25]), [20])
    expected = (small / 255 - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / 0.5
    torch.testing.assert_close(data.eval_transform(picture), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scale": (0.5, 0.2)}, "`scale` must be a range of shares"), ({"scale": (0.0, 1.0)}, "`scale` must be a range")],
    ids=["order", "zero"],
)
def test_wrong_arguments_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ImageDataModule(str(tmp_path), **options)


def test_missing_folder_and_classes_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="`root` must be the folder of the images, got 'nowhere'"):
        module("nowhere")
    (root / "train" / "odd").mkdir()
    Image.new("RGB", (9, 9)).save(root / "train" / "odd" / "0.png")
    with pytest.raises(ValueError, match="must have the same classes in every split, got 'odd' not in all"):
        module(root)


def test_missing_test_set_is_named(root):
    data = module(root / "train")
    with pytest.raises(ValueError, match="`root` must hold a test set, got .* with train, val"):
        data.test_dataloader()


def test_grey_of_16_bits_is_scaled(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for number, value in enumerate((0, 25700, 65535)):
            Image.fromarray(np.full((8, 8), value, np.uint16)).save(tmp_path / label / f"{number}.png")
    data = ImageDataModule(str(tmp_path), crop_size=8, val_size=2)
    data.setup("fit")
    values = {int(np.asarray(picture)[0, 0, 0]) for split in ("train", "val") for picture, _ in data.images[split]}
    assert values == {0, 100, 255}


def test_a_class_without_a_training_image_is_named(tmp_path):
    for label in "abc":
        (tmp_path / label).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / label / "0.png")
    with pytest.raises(ValueError, match="must have a training image of every class, got none of"):
        ImageDataModule(str(tmp_path), val_size=1).setup("fit")
    with pytest.raises(ValueError, match="`val_size` must leave images to train on"):
        ImageDataModule(str(tmp_path), val_size=3).setup("fit")
