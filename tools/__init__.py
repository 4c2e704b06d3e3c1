"""Training, evaluation and prediction: settings, devices, checkpoints, results."""
