"""The report of an evaluation: one HTML file that opens without a network, with its pictures inside."""

from DualTrackCore.research.report.page import write_report

__all__ = ["write_report"]
