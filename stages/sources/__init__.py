"""Where data and weights come from: the hub, a generated English world, files of one's own, installed packages."""
