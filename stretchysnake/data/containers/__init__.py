"""What a file says of itself without decoding: lengths, tables, clocks, packets."""
