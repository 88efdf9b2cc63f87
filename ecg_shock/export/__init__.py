"""Export a model to LiteRT, ONNX or C, after checking that it agrees with its bundle."""
