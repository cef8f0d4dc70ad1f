"""Records -> the survey's tables and the leaderboard, as files and on a terminal. Computes no metric."""

from ad_bench.report.board import Board, collect, show, write_report

__all__ = ["Board", "collect", "show", "write_report"]
