"""Backbones: images in, one feature vector per image (or its tokens) out."""
