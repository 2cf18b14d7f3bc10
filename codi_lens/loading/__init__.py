"""From the files of a checkpoint to a TransformerLens model, every key accounted for."""
