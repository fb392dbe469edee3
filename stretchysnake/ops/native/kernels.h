// What the dispatcher (dispatch.cpp) and the kernels compiled per instruction set share.
//
// Symbols: B batch, L tokens, D channels, N state size, K tokens between checkpoints,
// V lanes of a vector; a "block" is V neighbouring channels.
#pragma once

#include <cstdint>

// Tokens between two saved states. The backward holds K * N vectors four times over.
constexpr int64_t kCheckpointTokens = 32;

// Where row (b, t) of a batch starts: data + b * batch_stride + t * row_stride, in elements.
// The kernels see one sequence, whose first row is at data.
struct Rows {
    void* data;
    int64_t batch_stride, row_stride;
};

// Arguments of the scan, mirrored field by field in problems.py. Absent tensors are null.
// "token" order is reading order: the caller's order, or its mirror where reverse is set.
// delta may be given by its factors instead: dt (L, rank) and dt_weight (D, rank), delta = dt dt_weight^T;
// its rows are then absent, and its gradient goes on to them. A may be given as log(-A).
struct ScanProblem {
    int64_t batch, length, channels, state, rank, delta_softplus, A_is_log, reverse;
    // Adds to y (before the gate) and to grad_z what an earlier problem of the same call left there.
    int64_t adds;
    // is_bf16, of the forward alone: u, delta, z and y are bfloat16, all else fp32.
    int64_t is_double, is_bf16, num_threads;
    // Of sequences packed into one row (batch 1): their number, and (number + 1) 0 and where each ends;
    // otherwise 0 and null.
    int64_t sequences;
    const int64_t* cu_seqlens;
    Rows u, delta, B, C, z, dt;
    void *A, *D, *delta_bias, *initial_state, *dt_weight;
    void *y, *final_state, *checkpoints;
    // Backward only: gradients in, then gradients out; grad_u and grad_delta are dense.
    Rows grad_y;
    void* grad_final_state;
    void *grad_u, *grad_delta, *grad_A, *grad_D;
    Rows grad_B, grad_C, grad_dt, grad_z;
    void *grad_delta_bias, *grad_dt_weight, *grad_initial_state;
};

// Arguments of the convolution, mirrored in problems.py.
struct ConvProblem {
    int64_t batch, length, channels, width, reverse;
    int64_t adds;  // adds to grad_x what an earlier problem of the same call left there
    int64_t is_double, is_bf16, num_threads;  // is_bf16, of the forward alone: x and y are
    int64_t sequences;                        // as of the scan
    const int64_t* cu_seqlens;
    Rows x;
    void *weight, *bias, *y;
    // Where projection is not null: projected (L, outputs) = y projection^T, row by row while they are
    // in the cache; projection (outputs, D). In the backward projected is its gradient, which reaches y.
    int64_t outputs;
    void* projection;
    Rows projected;
    Rows grad_y, grad_x;
    void *grad_weight, *grad_bias, *grad_projection;
};

// Arguments of the residual sum with RMS norm, mirrored in problems.py; all tensors are dense.
struct NormProblem {
    int64_t rows, width, is_double, is_bf16, num_threads;  // is_bf16, forward alone: x and y are
    double eps;
    void *x, *residual, *weight, *y, *sum;
    void* inverse;  // 1 / rms of every row, for the backward
    void *grad_y, *grad_sum, *grad_x, *grad_weight;
};

// Vectors of outputs of a projection that are computed together, from weights packed for it.
constexpr int kPanel = 3;

// One piece of work: blocks (of the convolution's forward: tokens) [first, end) of a sequence, or
// rows of the norm.
struct Range {
    int64_t first, end;
};

// Per-thread sums of the backward over the segments of one thread; zeroed by the caller.
struct ScanSums {
    void *A, *D, *delta_bias, *dt_weight;  // blocks * N * V, blocks * V, blocks * V, blocks * rank * V
    Rows B, C, dt;                         // of the sequence of the current segment
};

// The scan and the convolution take problems of one sequence.
struct KernelTable {
    const char* name;
    int64_t vector_bytes;
    int64_t (*scan_workspace)(const ScanProblem&, bool backward);  // elements per thread
    void (*scan_forward)(const ScanProblem&, Range, void* workspace);
    void (*scan_backward)(const ScanProblem&, Range, const ScanSums&, void* workspace);
    int64_t (*conv_workspace)(const ConvProblem&);
    void (*conv_forward)(const ConvProblem&, Range, void* workspace);
    // sums: per block (K + 1 + outputs) vectors, the gradients of weight, bias and projection
    void (*conv_backward)(const ConvProblem&, Range, void* sums, void* workspace);
    void (*norm_forward)(const NormProblem&, Range);
    void (*norm_backward)(const NormProblem&, Range, void* grad_weight);
};
