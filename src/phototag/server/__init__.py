"""HTTP server of the champion (`phototag serve`), and the log of the photos that it served."""
