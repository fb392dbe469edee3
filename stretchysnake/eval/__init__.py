"""Evaluation: features, retrieval, sweeps over scales and their cost."""
