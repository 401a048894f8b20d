"""The pipeline's stages (one module each) and the library that they call."""
