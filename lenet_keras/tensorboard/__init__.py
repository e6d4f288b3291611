"""What TensorBoard shows of a run: curves while it trains, and a report on the test images at the end."""
