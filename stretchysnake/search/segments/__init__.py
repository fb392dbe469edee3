"""The parts of an index on disk: written once, searched where they lie, joined when there are many small ones."""
