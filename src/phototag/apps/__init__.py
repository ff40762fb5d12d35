"""Commands that use a trained model (predict, ask, demo, export), and the summary."""
