"""Shapes: meshes read or generated, rendered to views, and drawn as sketches."""
