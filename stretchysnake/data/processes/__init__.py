"""Decoding in processes of its own, under limits of time and memory."""
