"""Commands that use a trained model (predict, demo, export) and the summary of an evaluation."""
