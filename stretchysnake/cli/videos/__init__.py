"""What is done with video files of anybody: a verb a file, with `EXAMPLES` and `run(argv)`."""
