"""``python -m wsipipe``: the command line."""

import sys

from wsipipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
