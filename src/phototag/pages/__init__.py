"""Figure style, HTML template and text escaping that all reports share."""
