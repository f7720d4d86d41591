"""From a trained model to figures and the files that keep them."""
