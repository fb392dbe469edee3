"""Features of any videos on disk, and finding videos by example."""
