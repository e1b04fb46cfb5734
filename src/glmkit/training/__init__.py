"""Token stores -> weights: the stream of batches, the trainer, pretraining."""
