"""Video file -> clip."""
