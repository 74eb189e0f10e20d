"""`hyvideo.commons.infer_state`."""

state = None


def initialize_infer_state(args):
    global state
    first, last = map(int, args.sage_blocks_range.split("-"))
    assert (first, last) == (0, 53)
    state = (args.use_sageattn, args.enable_torch_compile, args.use_fp8_gemm, args.use_vae_parallel)
    assert args.quant_type and args.include_patterns
    return state
