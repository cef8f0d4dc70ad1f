"""`python -m ad_bench` is `adbench`."""

import sys

from ad_bench.cli import main

sys.exit(main())
