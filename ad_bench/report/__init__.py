"""Records -> tables, leaderboard, verdicts, ranks and a page to look at. Scores no prediction."""

from ad_bench.report.board import Board, collect, show, write_report

__all__ = ["Board", "collect", "show", "write_report"]
