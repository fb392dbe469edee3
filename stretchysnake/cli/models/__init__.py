"""What makes weights and writes them: a verb a file, with `EXAMPLES` and `run(argv)`."""
