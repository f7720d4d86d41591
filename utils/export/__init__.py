"""A trained model as one ONNX or TorchScript file, images in, embedding out, checked before it is kept."""
