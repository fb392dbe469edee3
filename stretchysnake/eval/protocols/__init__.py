"""Features to numbers: retrieval, probe, the test of a trained head."""
