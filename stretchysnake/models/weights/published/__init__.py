"""Weights by name: which are published where, fetched once, checked, kept; and folders of our own to publish."""
