"""A trained model as one ONNX or TorchScript file, images in, embedding out, checked before it is kept.

The package stands with the commands above processor, which it imports; nothing below may import it.
"""
