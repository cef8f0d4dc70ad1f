"""`python -m ad_bench.hydra_app`: one run a job, for Hydra's own sweepers and launchers.

    python -m ad_bench.hydra_app -m method=patchcore,padim dataset=mtd hydra/launcher=joblib

Hydra composes every cell and its launcher starts one job for each, so this suits tens of cells; `adbench run
launch=local|slurm` plans thousands. Records are the same. Suites are no part of it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_original_cwd

from ad_bench.config import conf_dir


def job(composed: Any) -> int:
    """Run what Hydra's words of this job name; returns how many cells failed."""
    import os

    from ad_bench import config
    from ad_bench.runner.plan import make_plan
    from ad_bench.runner.sweep import run_plan

    os.chdir(get_original_cwd())  # results and data lie where the command was given
    words = [word for word in HydraConfig.get().overrides.task if not word.startswith("launch=")]
    found = HydraConfig.get().runtime.config_sources
    folders = [Path(source.path) for source in found if source.provider == "command-line"]
    sys.path[:0] = map(str, folders)  # a user's method lies beside its YAML
    return run_plan(make_plan(config.choices(words, folders)))


def main() -> None:
    """Hydra's own command line; exit code 1 where a cell failed."""
    failed: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def app(composed: Any) -> int:
        failed.append(job(composed))
        return failed[-1]

    app()
    sys.exit(bool(sum(failed)))


if __name__ == "__main__":
    main()
