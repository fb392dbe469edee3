"""Complete runs: each recipe is a function returning one frozen dataclass, or one act."""
