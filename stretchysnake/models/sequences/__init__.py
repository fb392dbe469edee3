"""Clips that make no batch: of different shapes in one row, and longer than memory."""
