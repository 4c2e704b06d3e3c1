"""Shared by all packages: entities, tag schemes, options and command lines, atomic file writes, logging."""
