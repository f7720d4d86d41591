"""The layouts of published archives, and of a user's own table, one file each."""
