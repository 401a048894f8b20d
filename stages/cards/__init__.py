"""Model cards in the hub's format: what a checkpoint is, what made it, and whose terms it is under."""
