"""What every room stands on: params, files, errors."""
