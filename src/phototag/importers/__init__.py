"""Import formats: other layouts and label files into the layout that the pipeline reads."""
