"""Solvers: generators that ask for evaluations and return an outcome."""
