"""The ground: files, errors, devices, ranking and statistics; nothing here knows another package of this project."""
