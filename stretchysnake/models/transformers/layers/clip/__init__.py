"""CLIP's visual tower as video models take it in, and the parts they add to it."""
