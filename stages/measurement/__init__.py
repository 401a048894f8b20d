"""Size, speed, memory and quality of models, each measured in a process of its own where that matters."""
