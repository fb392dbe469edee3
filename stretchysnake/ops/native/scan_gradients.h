// What the parts of a scan's backward leave, and their sums in the order of the parts; for dispatch.cpp.
#pragma once

#include <cmath>

#include "division.h"

namespace {

// Block-wise vectors ((block, row, lane), one copy per thread) to dense (channel, row).
template <typename T>
void sum_blocks(const Scratch& sums, size_t per_thread, size_t offset, int threads, int64_t lanes,
                int64_t channels, int64_t rows, int64_t row_stride, int64_t skip, T* out) {
    for (int64_t channel = 0; channel < channels; ++channel)
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t index =
                (channel / lanes * row_stride + skip + row) * lanes + channel % lanes;
            T total = 0;
            for (int thread = 0; thread < threads; ++thread)
                total += reinterpret_cast<const T*>(sums.at(thread * per_thread + offset))[index];
            out[channel * rows + row] = total;
        }
}

// The scratch of one scan problem's backward: sums of each part, and rows of dB, dC and d(dt) of the
// sequences that a part shares with another.
template <typename T> class ScanGradients {
  public:
    ScanGradients(const ScanProblem& p, const Division& division, int64_t lanes)
        : p_(p), division_(division), lanes_(lanes), vector_(lanes_ * sizeof(T)),
          of_D_(division.blocks * p.state * vector_), of_bias_(of_D_ + division.blocks * vector_),
          of_dt_(of_bias_ + division.blocks * vector_),
          sums_bytes_(aligned(of_dt_ + division.blocks * rank() * vector_)),
          edge_bytes_(division.parts > 1
                          ? aligned(division.sequences.longest() * width() * sizeof(T))
                          : 0), sums_(division.parts * sums_bytes_, true),
          edges_(division.parts > 1 ? 2 * division.parts * edge_bytes_ : 0, false) {}

    // Where part `part` sums over its `index`-th segment.
    ScanSums sums(int part, size_t index, const Segment& s) const {
        char* own = sums_.at(part * sums_bytes_);
        const auto rows = [&](const Rows& grad, int64_t column) {
            return is_whole(s) ? of(grad, s) : Rows{edge(part, index) + column, 0, width()};
        };
        return {own, own + of_D_, own + of_bias_, own + of_dt_, rows(p_.grad_B, 0),
                rows(p_.grad_C, p_.state), rows(p_.grad_dt, 2 * p_.state)};
    }

    // Adds up the parts, in order.
    void collect() const {
        int64_t opened = -1;
        for (int part = 0; part < division_.parts; ++part) {
            const std::vector<Segment> segments = division_.segments(part);
            for (size_t index = 0; index < segments.size(); ++index) {
                const Segment s = segments[index];
                if (is_whole(s)) continue;
                const bool first = s.sequence != opened;
                opened = s.sequence;
                const int64_t length = division_.sequences.length_of(s.sequence);
                const T* from = edge(part, index);
                add(of(p_.grad_B, s), from, length, p_.state, first);
                add(of(p_.grad_C, s), from + p_.state, length, p_.state, first);
                if (rank()) add(of(p_.grad_dt, s), from + 2 * p_.state, length, rank(), first);
            }
        }
        const auto sum = [&](size_t offset, int64_t rows, void* out) {
            if (out)
                sum_blocks<T>(sums_, sums_bytes_, offset, division_.parts, lanes_, p_.channels,
                              rows, rows, 0, static_cast<T*>(out));
        };
        sum(0, p_.state, p_.grad_A);
        sum(of_D_, 1, p_.grad_D);
        sum(of_bias_, 1, p_.grad_delta_bias);
        sum(of_dt_, rank(), p_.grad_dt_weight);
        if (p_.A_is_log) {  // d(log(-A)) = A dA
            const T* log_A = static_cast<const T*>(p_.A);
            T* grad = static_cast<T*>(p_.grad_A);
            for (int64_t n = 0; n < p_.channels * p_.state; ++n) grad[n] *= -std::exp(log_A[n]);
        }
    }

  private:
    bool is_whole(const Segment& s) const { return s.first == 0 && s.end == division_.blocks; }
    int64_t rank() const { return p_.dt.data ? p_.rank : 0; }
    int64_t width() const { return 2 * p_.state + rank(); }  // of an edge's rows: dB, dC, d(dt)
    Rows of(Rows grad, const Segment& s) const {
        const Sequences& all = division_.sequences;
        const int64_t before = all.ends ? all.start(s.sequence) * grad.row_stride
                                        : s.sequence * grad.batch_stride;
        if (grad.data) grad.data = static_cast<T*>(grad.data) + before;
        return grad;
    }
    // A part shares at most its first and its last sequence with others.
    T* edge(int part, size_t index) const {
        return reinterpret_cast<T*>(edges_.at((2 * part + (index > 0)) * edge_bytes_));
    }
    void add(const Rows& rows, const T* from, int64_t length, int64_t columns, bool first) const {
        for (int64_t t = 0; t < length; ++t) {
            T* to = static_cast<T*>(rows.data) + t * rows.row_stride;
            const T* row = from + t * width();
            for (int64_t i = 0; i < columns; ++i) to[i] = first ? row[i] : to[i] + row[i];
        }
    }

    const ScanProblem& p_;
    const Division& division_;
    int64_t lanes_;
    size_t vector_, of_D_, of_bias_, of_dt_, sums_bytes_;
    size_t edge_bytes_;  // of the longest sequence
    Scratch sums_, edges_;
};

}  // namespace
