"""The machinery: arguments, devices, training, evaluation, prediction, results."""
