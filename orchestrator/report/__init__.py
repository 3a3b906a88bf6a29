"""The landscape as one self-contained HTML page."""

from orchestrator.report.page import write_report

__all__ = ["write_report"]
