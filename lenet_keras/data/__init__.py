"""Datasets: which ones exist, where they come from, how they are checked, and the order in which training sees them."""
