"""A trained model as a folder for others, that `FeatureExtractor.from_pretrained` reads, with a card that describes it.

The package stands with the commands above processor, which it imports; nothing below may import it.
"""
