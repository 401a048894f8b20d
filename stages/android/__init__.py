"""Measuring the exported ONNX models on a device: adb, the runner's bundle, runs, results and their collection."""
