"""Rules between keys, one subject each: what contradicts, and what has no effect."""
