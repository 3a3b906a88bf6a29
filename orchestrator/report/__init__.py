"""The landscape as one self-contained HTML page, and as tables and figures for papers."""

from orchestrator.report.findings import Findings
from orchestrator.report.page import write_report
from orchestrator.report.paper import write_paper

__all__ = ["Findings", "write_paper", "write_report"]
