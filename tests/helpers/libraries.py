"""Small networks of other libraries."""

SMALL_BERT = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "num_frames": 16,
}  # fmt: skip
"""A video transformer that takes clips of 16 × 32²."""


def transformers_model(kind, num_classes):
    import transformers

    config = transformers.AutoConfig.for_model(kind, num_labels=num_classes, **SMALL_BERT)
    return transformers.AutoModelForVideoClassification.from_config(config)
