"""`python -m DualTrackCore.cli`."""

import sys

from DualTrackCore.cli import main

if __name__ == "__main__":
    sys.exit(main())
