"""Read files from a folder or zip, and decode image files into pixels."""
