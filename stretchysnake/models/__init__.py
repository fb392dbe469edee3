"""Clip to tokens to features: the VideoMamba backbone, its mixer, resampling and checkpoints."""
