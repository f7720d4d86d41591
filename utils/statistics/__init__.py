"""Intervals and paired tests over identities."""
