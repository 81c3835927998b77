"""The figures, one module per question. Each answers lines of the report."""
