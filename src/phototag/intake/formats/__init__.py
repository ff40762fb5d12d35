"""What people have: photos with labels in the layouts of other tools, read into one shape."""
