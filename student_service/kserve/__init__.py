"""KServe v2 (`inference.GRPCInferenceService`, Triton's protocol) beside our own services, on the same port."""
