"""Split photos into train, val and test, stratified by label."""
