"""Write a model for LiteRT, ONNX or C, and check it against the bundle before it is written."""
