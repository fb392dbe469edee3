"""Clips on their way to the model: one, a batch, batches ahead, their device. What joins these: loader.py."""
