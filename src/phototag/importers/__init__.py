"""Import of datasets in other formats: convert them to the layout that the pipeline reads."""
