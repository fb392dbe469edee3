"""`python -m stretchysnake.cli`, as torchrun starts it."""

import sys

from stretchysnake.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
