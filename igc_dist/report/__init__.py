"""The report of a store: an HTML page with figures, and tables for the terminal. Reads an opened tree, nothing else."""

from igc_dist.report.gallery import write_gallery
from igc_dist.report.page import write_report
from igc_dist.report.tables import compare, info, summary_table

__all__ = ["compare", "info", "summary_table", "write_gallery", "write_report"]
