"""Variants side by side: runs grouped by seed, their spread, and whether differences are more than chance."""
