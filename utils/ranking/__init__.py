"""Ranking of a gallery for queries: distances, protocol, ranks, and what is read from them."""
