"""Frames of a file: which track, in which order, upright and in true colours; the only room that knows a decoder."""
