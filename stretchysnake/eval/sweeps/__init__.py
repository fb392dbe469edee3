"""Protocols over scales: cells, their cost, and the going on after a stop."""
