"""What every stage stands on: parameters, files, errors, start and end, threads and processes."""
