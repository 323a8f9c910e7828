"""Metrics of faithfulness: one score, one file."""
