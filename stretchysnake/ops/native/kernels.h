// What the dispatcher (dispatch.cpp) and the kernels compiled per instruction set share.
//
// Symbols: B batch, L tokens, D channels, N state size, K tokens between checkpoints,
// V lanes of a vector; a "block" is V neighbouring channels.
#pragma once

#include <cstdint>

// Tokens between two saved states. The backward holds K * N vectors four times over.
constexpr int64_t kCheckpointTokens = 32;

// Where row (b, t) of a sequence starts: data + b * batch_stride + t * row_stride, in elements.
struct Rows {
    void* data;
    int64_t batch_stride, row_stride;
};

// Arguments of the scan, mirrored field by field in selective_scan_cpu.py. Absent tensors are null.
// "token" order is reading order: the caller's order, or its mirror where reverse is set.
struct ScanProblem {
    int64_t batch, length, channels, state, delta_softplus, reverse, is_double, num_threads;
    Rows u, delta, B, C, z;
    void *A, *D, *delta_bias, *initial_state;
    void *y, *final_state, *checkpoints;
    // Backward only: gradients in, then gradients out; sequences are dense.
    Rows grad_y;
    void* grad_final_state;
    void *grad_u, *grad_delta, *grad_A, *grad_B, *grad_C, *grad_D, *grad_z, *grad_delta_bias;
    void* grad_initial_state;
};

// Arguments of the convolution, mirrored in causal_conv_cpu.py.
struct ConvProblem {
    int64_t batch, length, channels, width, reverse, is_double, num_threads;
    Rows x;
    void *weight, *bias, *y;
    Rows grad_y;
    void *grad_x, *grad_weight, *grad_bias;
};

// One piece of work: blocks [first_block, end_block) of one sequence.
struct Segment {
    int64_t batch_index, first_block, end_block;
};

// Per-thread sums of the backward over the segments of one thread; zeroed by the caller.
struct ScanSums {
    void *A, *D, *delta_bias;  // blocks * N * V, blocks * V, blocks * V
    void *B, *C;               // L * N each, of the sequence of the current segment
};

struct KernelTable {
    const char* name;
    int64_t vector_bytes;
    int64_t (*scan_workspace)(const ScanProblem&, bool backward);  // elements per thread
    void (*scan_forward)(const ScanProblem&, Segment, void* workspace);
    void (*scan_backward)(const ScanProblem&, Segment, const ScanSums&, void* workspace);
    int64_t (*conv_workspace)(const ConvProblem&);
    void (*conv_forward)(const ConvProblem&, Segment, void* workspace);
    // sums: per block (K + 1) vectors, the weight's gradient then the bias's
    void (*conv_backward)(const ConvProblem&, Segment, void* sums, void* workspace);
};
