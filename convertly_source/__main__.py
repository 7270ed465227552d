"""`python -m convertly_source` is the command line."""

import sys

from convertly_source.cli import main

sys.exit(main())
