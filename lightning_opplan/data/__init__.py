"""Video data: lists, decoding, clip sampling, transforms and the data module."""
