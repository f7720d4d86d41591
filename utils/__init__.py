"""Tools that know no other package of this project: metrics, checkpoints, logging, devices."""
