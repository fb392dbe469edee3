"""Weights that come with the package: folders of save_pretrained, and the table of what they must be."""
