"""Commands on trained models and results: python -m tools.<name>."""
