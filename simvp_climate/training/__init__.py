"""Training: windows and batches, loss, loop, checkpoints, several processes."""
