"""Frames out of videos to show, and frames of others to embed."""
