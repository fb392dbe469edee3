"""Both directions of a mixer as one operation, by single operations and natively."""
