"""The selective scan: what it means, its reference, and one file for each backend."""
