"""Models for ONNX Runtime: export, INT8 quantization, verification and sessions."""
