"""What concerns the installation itself: a verb a file, with `EXAMPLES` and `run(argv)`."""
