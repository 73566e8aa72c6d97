"""From a Dataset to normalized tensors: task, statistics, forcings, channels."""
