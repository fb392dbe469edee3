"""What several transformers share: attention, windows, stems, CLIP's tower."""
