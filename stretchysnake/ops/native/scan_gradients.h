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

// The scratch of one scan problem's backward: sums of each part, and rows of dB and dC of the
// sequences that a part shares with another.
template <typename T> class ScanGradients {
  public:
    ScanGradients(const ScanProblem& p, const Division& division, int64_t lanes)
        : p_(p), division_(division), lanes_(lanes), vector_(lanes_ * sizeof(T)),
          of_D_(division.blocks * p.state * vector_), of_bias_(of_D_ + division.blocks * vector_),
          sums_bytes_(aligned(of_bias_ + division.blocks * vector_)),
          row_(division.parts > 1 ? division.sequences.longest() * p.state : 0),
          edge_bytes_(aligned(2 * row_ * sizeof(T))), sums_(division.parts * sums_bytes_, true),
          edges_(division.parts > 1 ? 2 * division.parts * edge_bytes_ : 0, false) {}

    // Where part `part` sums over its `index`-th segment.
    ScanSums sums(int part, size_t index, const Segment& s) const {
        char* own = sums_.at(part * sums_bytes_);
        T* to_B = is_whole(s) ? of(p_.grad_B, s) : edge(part, index);
        T* to_C = is_whole(s) ? of(p_.grad_C, s) : edge(part, index) + row_;
        return {own, own + of_D_, own + of_bias_, to_B, to_C};
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
                const int64_t count = division_.sequences.length_of(s.sequence) * p_.state;
                add(of(p_.grad_B, s), edge(part, index), count, first);
                add(of(p_.grad_C, s), edge(part, index) + row_, count, first);
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
        if (p_.A_is_log) {  // d(log(-A)) = A dA
            const T* log_A = static_cast<const T*>(p_.A);
            T* grad = static_cast<T*>(p_.grad_A);
            for (int64_t n = 0; n < p_.channels * p_.state; ++n) grad[n] *= -std::exp(log_A[n]);
        }
    }

  private:
    bool is_whole(const Segment& s) const { return s.first == 0 && s.end == division_.blocks; }
    T* of(void* grad, const Segment& s) const {
        return static_cast<T*>(grad) + division_.sequences.start(s.sequence) * p_.state;
    }
    // A part shares at most its first and its last sequence with others.
    T* edge(int part, size_t index) const {
        return reinterpret_cast<T*>(edges_.at((2 * part + (index > 0)) * edge_bytes_));
    }
    static void add(T* to, const T* from, int64_t count, bool first) {
        if (first)
            std::memcpy(to, from, count * sizeof(T));
        else
            for (int64_t i = 0; i < count; ++i) to[i] += from[i];
    }

    const ScanProblem& p_;
    const Division& division_;
    int64_t lanes_;
    size_t vector_, of_D_, of_bias_, sums_bytes_;
    int64_t row_;  // of the longest sequence
    size_t edge_bytes_;
    Scratch sums_, edges_;
};

}  // namespace
