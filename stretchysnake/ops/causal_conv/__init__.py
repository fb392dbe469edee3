"""The causal convolution with SiLU: what it means, and one file for each backend."""
