"""Clips to features: extracted once, kept, shared out among ranks."""
