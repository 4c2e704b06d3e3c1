"""A trained folder on raw text: predictor, output formats, service, ONNX export."""
