"""Benchmarks of what searches cost."""
