"""Triton kernels for CUDA: what a cell does between its inputs and its nodes, in few passes over memory.

Images are *planes*: (planes, N, H, W, C), so that each is a dense channels_last image, and all operations of a cell share one tensor. Four
kinds of kernels work on them:

    depthwise, pools   make planes of planes: what an operation does in space
    moments, products  sum over all pixels of planes, in two stages without atomics: equal input gives equal output
    matrices           pointwise convolution, BatchNorm and mixing weight of each term as one matrix, and the gradients of all three
    mix, unmix         matrix products over channels: planes times these matrices, summed into nodes

Each has its way back. Nothing here is differentiable: `spaces.fused` puts the kernels together. They run in float32 and bfloat16, with
sums in float32; on a CPU with `TRITON_INTERPRET=1`, set before this package is imported. It needs triton, which not every torch brings.
"""
