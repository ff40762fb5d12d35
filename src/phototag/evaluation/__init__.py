"""What a trained network is worth: thresholds, scores, figures, the report page."""
