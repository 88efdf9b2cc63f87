"""Export a model to LiteRT, ONNX or C, and check that the export agrees with its bundle."""
