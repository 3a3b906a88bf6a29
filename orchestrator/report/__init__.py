"""The landscape as one self-contained HTML page, and as tables and figures for papers."""

from orchestrator.report.page import write_report
from orchestrator.report.paper import write_paper

__all__ = ["write_paper", "write_report"]
