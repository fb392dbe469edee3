"""What a training keeps: its state, its files, and whether a folder holds this very run."""
