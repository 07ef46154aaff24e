"""`python -m tachyon`: see `python -m tachyon --help`."""

import sys

from tachyon.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
