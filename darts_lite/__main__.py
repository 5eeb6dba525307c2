"""`python -m darts_lite` lists the verbs; `python -m darts_lite search ...` is `python -m darts_lite.search ...`."""

import sys

from darts_lite.cli.run import run_package

if __name__ == "__main__":
    sys.exit(run_package())
