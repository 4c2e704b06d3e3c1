"""Training under PyTorch Lightning, and all of GLUE."""
