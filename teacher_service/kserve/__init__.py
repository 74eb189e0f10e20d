"""KServe v2 (`inference.GRPCInferenceService`, Triton's protocol) beside our own service, on the same port."""
