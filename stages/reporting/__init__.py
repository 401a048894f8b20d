"""From the evaluation cells to metrics, tables and the README."""
