"""Figure style, HTML page template and escaping that all reports share."""
