"""KServe v2 (`inference.GRPCInferenceService`, Triton's protocol), as far as it is the same for all services."""
