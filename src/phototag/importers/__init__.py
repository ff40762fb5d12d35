"""Import formats of other tools, converted to the layout that the pipeline reads."""
