"""Measured numbers: a row for each, its interval, and what rows say beside one another."""
