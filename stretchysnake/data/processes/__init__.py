"""Decoding in processes of its own, under limits of time and memory; what they contain: decoder_pool.py."""
