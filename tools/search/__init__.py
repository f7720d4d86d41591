"""python -m tools.search, and the index of a gallery that it keeps."""
