"""The launcher: many seeds and recipes, trained, tested and summarised by one command."""
