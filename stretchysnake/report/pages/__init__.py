"""Tables and pictures to one HTML page, or to files."""
