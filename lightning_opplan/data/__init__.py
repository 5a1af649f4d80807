"""Video and image data: lists, decoding, clip sampling, transforms and the data module."""

from lightning_opplan.data.demo import DemoDataModule
from lightning_opplan.data.image_module import ImageDataModule
from lightning_opplan.data.module import VideoDataModule

__all__ = ["DemoDataModule", "ImageDataModule", "VideoDataModule"]
