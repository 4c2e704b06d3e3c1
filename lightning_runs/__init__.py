"""Training with PyTorch Lightning, and the GLUE tasks."""
