"""From the configuration to a model: one file a MODEL.NAME. With make_model the only readers of cfg in `model`."""
