"""Parts that models are put together from."""
