"""The program `adbench`, also as `python -m ad_bench`."""

from __future__ import annotations

import atexit
import os
import sys
import threading

from ad_bench.cli import main


def program() -> None:
    """Run one command and end the process with its exit code."""
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # nobody reads any more: Python knows what to say
        sys.exit(code)
    if threading.active_count() > 1:
        sys.exit(code)
    # All is written and closed. Python would take torch and timm apart, thing by thing: over a second.
    atexit._run_exitfuncs()
    os._exit(code)


if __name__ == "__main__":
    program()
