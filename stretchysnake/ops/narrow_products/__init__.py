"""Products of narrow numbers on a CPU: bf16 and int8."""
