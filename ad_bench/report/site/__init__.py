"""The page of `adbench report`: one folder of HTML, scripts and pictures that opens without a server."""

from ad_bench.report.site.extra import Extra
from ad_bench.report.site.write import write_site

__all__ = ["Extra", "write_site"]
