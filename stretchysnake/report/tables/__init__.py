"""Rows to tables, and the paper's own numbers as data."""
