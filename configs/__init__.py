"""Configs: what a run does, as plain values. Each file opens with its command and the expected result."""
