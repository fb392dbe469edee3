"""One file per verb of the command line: `EXAMPLES`, shown by --help, and `run(argv)`, which gives the exit code."""
