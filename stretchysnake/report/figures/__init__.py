"""Rows and arrays to pictures."""
