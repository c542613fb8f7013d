"""Helpers used throughout: errors, files, devices, processes, random numbers, images."""
