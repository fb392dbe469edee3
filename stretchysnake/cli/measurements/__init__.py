"""What measures models and shows the rows: a verb a file, with `EXAMPLES` and `run(argv)`."""
