"""Benchmarks: problems in code, results as JSON lines, pictures drawn from those lines only."""
