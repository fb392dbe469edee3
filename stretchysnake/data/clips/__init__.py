"""From frames to batches: which frames, what is done to them, where clips come from, and the loader."""
