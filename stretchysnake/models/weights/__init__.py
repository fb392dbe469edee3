"""Weights: where they lie in a file, whose they are, how they fit a model, how they are written."""
