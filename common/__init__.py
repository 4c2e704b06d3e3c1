"""What every room may use: tag schemes, command lines, durable files, logging."""
