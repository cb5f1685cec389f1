"""`python -m harness`: the command `vlm-phase`."""

import sys

from harness.command.main import main

if __name__ == "__main__":
    sys.exit(main())
