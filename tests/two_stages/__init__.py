"""A system of two stages, for tests alone: `warm` fits the head on cached features, `main` trains all."""
