"""Querying a trained model: one object for a run, a SavedModel and a server alike, image files, and measurements."""
