"""Pictures of results: rank lists, attention maps and embeddings."""
