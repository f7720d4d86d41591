"""Weights of files into models: names of other projects, one generic load, and a report."""
