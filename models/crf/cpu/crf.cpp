// Forward-backward and Viterbi over batches of linear chains, several rows side by side: tag j of word k of all rows of
// a group is one vector, so all sums are of whole vectors and the rows never meet. docs/crf.md derives the arithmetic.
//
// Each function takes a Job and may run on any number of threads at once: a thread takes chunks of the batch until none
// is left. A batch is divided by its shape alone, and sums are made in the order of rows: results do not depend on the
// number of threads.

#include <cmath>
#include <cstdint>
#include <cstring>

// How a row was computed, or why it was not: as in chains.py.
enum Mode : uint8_t { SCALED, LOG_SPACE, NO_GRADIENT, NO_PATH, NO_SUCH_TAG };

// All fields have eight bytes; job.py has the same list. Strides count entries; what is absent is null.
struct Job {
    int64_t next_chunk;               // a counter that the threads share
    int64_t unserved;                 // whether a row was left with a mode other than SCALED and NO_GRADIENT
    int64_t rows, words, tags;        // B, W, C
    int64_t parts, chunk, chunks;     // groups of rows, groups in a chunk, chunks
    const void* emissions;
    int64_t emissions_row, emissions_word;
    const uint8_t* mask;
    int64_t mask_row, mask_word;
    const int64_t* gold;
    int64_t gold_row, gold_word;
    const void *start, *end, *transitions;
    const uint8_t *legal, *allowed;  // (C + 2, C + 2), (B, W, C)
    void* value;                     // (B,) the log-partition, or the log-likelihood of gold
    uint8_t* mode;                   // (B,) how each row was computed
    void* gradient;                  // (B, W, C) by the emissions, of the negative of each value; likewise
    int64_t gradient_row, gradient_word;
    double* sums;    // (B, C + 2, C) by the transitions, the start and the end; null if no gradients are wanted
    int64_t* paths;  // (B, W)
    int64_t padding;
    int64_t backwards;  // of log_sweep
    double* logs;       // (B, W, C) likewise
};

namespace {

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#ifdef __clang__
#define SHUFFLE(I, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(I, a, b, ...) __builtin_shuffle(a, b, I{__VA_ARGS__})
#endif

constexpr int WINDOW = 64;  // rows among which those of similar length are found
constexpr int FLUSH = 128;  // words between two moves of the pairwise sums to double precision
constexpr int BLOCK = 4;    // words whose pairs are added at once

constexpr double SERIES[] = {  // of the exponential: 1 / k!, so far that the rest is below half a unit in the last place
    1.0,       1.0,        1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
    1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800,
};

template <class T>
struct Simd;

template <>
struct Simd<float> {
    static constexpr int L = 8, MANTISSA = 23, BIAS = 127, TERMS = 7;
    typedef float V __attribute__((vector_size(32)));
    typedef int32_t I __attribute__((vector_size(32)));
    static constexpr float LOWEST = -87, MAGIC = 0x1.8p23f;
    static constexpr float FLOOR = 0x1p-63f;       // the square root of the smallest normal number
    static constexpr double NEGLIGIBLE = 0x1p-30;  // probability of paths that pass a floor

    static INLINE void transpose(V* r) {
        V t[8], u[8];
        UNROLL for (int i = 0; i < 8; i += 2) {
            t[i] = SHUFFLE(I, r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
            t[i + 1] = SHUFFLE(I, r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
        }
        UNROLL for (int i = 0; i < 8; i += 4)
            UNROLL for (int j = 0; j < 2; j++) {
                u[i + 2 * j] = SHUFFLE(I, t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
                u[i + 2 * j + 1] = SHUFFLE(I, t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
            }
        UNROLL for (int i = 0; i < 4; i++) {
            r[i] = SHUFFLE(I, u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
            r[i + 4] = SHUFFLE(I, u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
        }
    }
};

template <>
struct Simd<double> {
    static constexpr int L = 4, MANTISSA = 52, BIAS = 1023, TERMS = 13;
    typedef double V __attribute__((vector_size(32)));
    typedef int64_t I __attribute__((vector_size(32)));
    static constexpr double LOWEST = -708, MAGIC = 0x1.8p52;
    static constexpr double FLOOR = 0x1p-511;
    static constexpr double NEGLIGIBLE = 0x1p-60;
};

// Numbers below the normal ones count as zero, on the one kind of processor where they are slow.
struct NoSubnormals {
#if defined(__x86_64__)
    unsigned before = __builtin_ia32_stmxcsr();
    NoSubnormals() { __builtin_ia32_ldmxcsr(before | 0x8040); }
    ~NoSubnormals() { __builtin_ia32_ldmxcsr(before); }
#endif
};

// Memory for so many numbers or vectors, with nothing written to it.
template <class A>
struct Room {
    A* const first;
    explicit Room(int64_t size) : first(new A[size]) {}
    Room(const Room&) = delete;
    ~Room() { delete[] first; }
    operator A*() const { return first; }
};

template <class T>
struct Kernel {
    typedef Simd<T> S;
    typedef typename S::V V;
    typedef typename S::I I;
    static constexpr int L = S::L;
    static constexpr T INF = __builtin_inf();

    Job& job;
    const int64_t W = job.words, C = job.tags, matrix = (C * C + L - 1) / L * L;
    // The scores of boundaries and transitions, -inf where illegal; `into` is turned, with a row of zeros behind.
    Room<T> start{C}, end{C}, scores{matrix}, into{matrix + C}, weights{matrix}, turned{matrix};
    T top_score = -INF;
    bool transitions_fine = true;
    Room<int64_t> floored{matrix};  // transitions whose weight was raised to the floor
    int64_t floored_count = 0;
    // The group at hand: its rows, the longest first, how many words each has, and their columns.
    int64_t row[L], count[L], longest = 0, window = -1, order[WINDOW];
    Room<int32_t> column{L * W};
    V words;  // `count` as numbers
    V fine;   // 1 where no score is NaN or +inf
    // Scores or factors of words, forward variables (W, C); vectors of one word (C); pairs (C, C).
    Room<V> e{W * C}, alpha{W * C}, before{C}, g{C}, block{BLOCK * C}, marginal{C}, last{C}, pairs{C * C};
    Room<double> exact{C * C * L};
    Room<T> nothing{C};  // where lanes write that have ended
    bool flushed;
    double shift[L];

    static INLINE V all(T x) { return V{} + x; }
    static INLINE V larger(V a, V b) { return a > b ? a : b; }
    static INLINE V smaller(V a, V b) { return a < b ? a : b; }
    static INLINE V load(const T* from) {
        V x;
        memcpy(&x, from, sizeof x);
        return x;
    }
    static INLINE void store(T* to, V x) { memcpy(to, &x, sizeof x); }

    // exp(x) for x <= 0: 2^n exp(r), x = n ln 2 + r (Cody and Waite 1980). 0 for -inf, never subnormal.
    static INLINE V exp(V x) {
        V bounded = larger(x, all(S::LOWEST));
        V shifted = bounded * T(1.4426950408889634) + S::MAGIC, n = shifted - S::MAGIC;
        V r = (bounded - n * T(0.693359375)) - n * T(-2.1219444005469058e-4);
        V p = all(T(SERIES[S::TERMS]));
        UNROLL for (int k = S::TERMS - 1; k >= 0; k--) p = p * r + T(SERIES[k]);
        I power = ((I)shifted - (I)all(S::MAGIC) + S::BIAS) << S::MANTISSA;
        return x > -INF ? p * (V)power : V{};
    }

    // out[j] = sum_i x[i] * matrix[i, j], or the largest x[i] + matrix[i, j], for N columns.
    template <bool MAXIMUM, int N>
    static INLINE void columns(V* __restrict out, const V* __restrict x, const T* __restrict matrix, int64_t C) {
        V sums[N];
        UNROLL for (int n = 0; n < N; n++) sums[n] = MAXIMUM ? all(-INF) : V{};
        for (int64_t i = 0; i < C; i++, matrix += C)
            UNROLL for (int n = 0; n < N; n++)
                sums[n] = MAXIMUM ? larger(sums[n], x[i] + matrix[n]) : sums[n] + x[i] * matrix[n];
        UNROLL for (int n = 0; n < N; n++) out[n] = sums[n];
    }

    template <bool MAXIMUM>
    void multiply(V* out, const V* x, const T* matrix) {
        int64_t j = 0;
        for (; j + 8 <= C; j += 8) columns<MAXIMUM, 8>(out + j, x, matrix + j, C);
        if (C - j >= 4) columns<MAXIMUM, 4>(out + j, x, matrix + j, C), j += 4;
        if (C - j >= 2) columns<MAXIMUM, 2>(out + j, x, matrix + j, C), j += 2;
        if (C - j >= 1) columns<MAXIMUM, 1>(out + j, x, matrix + j, C);
    }

    // Bring C numbers of each lane side by side.
    void gather(V* out, const T* const* from) {
        int64_t j = 0;
        if constexpr (L == 8)
            for (; j + L <= C; j += L) {
                V r[L];
                UNROLL for (int lane = 0; lane < L; lane++) r[lane] = load(from[lane] + j);
                S::transpose(r);
                UNROLL for (int n = 0; n < L; n++) out[j + n] = r[n];
            }
        for (; j < C; j++)
            for (int lane = 0; lane < L; lane++) out[j][lane] = from[lane][j];
    }

    void scatter(T* const* to, const V* x, V factor) {
        int64_t j = 0;
        if constexpr (L == 8)
            for (; j + L <= C; j += L) {
                V r[L];
                UNROLL for (int n = 0; n < L; n++) r[n] = x[j + n] * factor;
                S::transpose(r);
                UNROLL for (int lane = 0; lane < L; lane++) store(to[lane] + j, r[lane]);
            }
        for (; j < C; j++) {
            V y = x[j] * factor;
            for (int lane = 0; lane < L; lane++) to[lane][j] = y[lane];
        }
    }

    explicit Kernel(Job& job) : job(job) {
        const T *first = static_cast<const T*>(job.start), *final = static_cast<const T*>(job.end);
        const T* given = static_cast<const T*>(job.transitions);
        const uint8_t* legal = job.legal;
        for (int64_t i = 0; i < C; i++) {
            start[i] = !legal || legal[C * (C + 2) + i] ? first[i] : -INF;
            end[i] = !legal || legal[i * (C + 2) + C + 1] ? final[i] : -INF;
            for (int64_t j = 0; j < C; j++) {
                T score = !legal || legal[i * (C + 2) + j] ? given[i * C + j] : -INF;
                scores[i * C + j] = into[j * C + i] = score;
                transitions_fine &= score < INF;
                top_score = score > top_score ? score : top_score;
            }
        }
        if (top_score == -INF) top_score = 0;
        for (int64_t j = 0; j < C; j++) into[C * C + j] = 0;
        for (int64_t i = C * C; i % L; i++) scores[i] = -INF;
        for (int64_t i = 0; i < C * C; i += L) store(weights + i, exp(load(scores + i) - top_score));
        for (int64_t i = 0; i < C * C; i++) {
            if (weights[i] > 0 && weights[i] < S::FLOOR) {
                weights[i] = S::FLOOR;
                floored[floored_count++] = i;
            }
            turned[i % C * C + i / C] = weights[i];
        }
    }

    // Find the columns of a row's words, and return how many there are.
    int64_t find_words(int64_t row, int32_t* out) const {
        int64_t found = 0;
        const uint8_t* mask = job.mask + row * job.mask_row;
        for (int64_t k = 0; k < W; k++) {
            out[found] = k;  // what a masked word writes, the next one writes over
            found += !job.mask || mask[k * job.mask_word];
        }
        return found;
    }

    // The rows of a window by length, those of equal length as they stand.
    void rank_rows(int64_t begin, int64_t size) {
        int64_t counts[WINDOW];
        for (int64_t i = 0; i < size; i++) {
            const uint8_t* mask = job.mask + (begin + i) * job.mask_row;
            counts[i] = job.mask ? 0 : W;
            for (int64_t k = 0; job.mask && k < W; k++) counts[i] += mask[k * job.mask_word];
        }
        for (int64_t i = 0; i < size; i++) {
            int rank = 0;
            for (int64_t j = 0; j < size; j++) rank += counts[j] > counts[i] || (counts[j] == counts[i] && j < i);
            order[rank] = begin + i;
        }
    }

    // Choose the rows of a group. A lane without a row does as the first one, and has no words.
    void choose(int64_t group) {
        int64_t begin = group * L / WINDOW * WINDOW, place = group * L - begin;
        int64_t size = job.rows - begin < WINDOW ? job.rows - begin : WINDOW;
        if (window != begin) rank_rows(window = begin, size);
        for (int lane = 0; lane < L; lane++) {
            bool exists = place + lane < size;
            row[lane] = exists ? order[place + lane] : -1;
            count[lane] = exists ? find_words(row[lane], column + lane * W) : 0;
            words[lane] = count[lane];
        }
        longest = count[0];
    }

    // Where the words k of all lanes lie in a tensor; those of a lane that has ended are its last one's.
    template <class A>
    INLINE void places(A** out, A* tensor, int64_t row_step, int64_t word_step, int64_t k) const {
        for (int lane = 0; lane < L; lane++) {
            int from = count[lane] ? lane : 0;
            int64_t word = column[from * W + (k < count[from] ? k : count[from] - 1)];
            out[lane] = tensor + row[from] * row_step + word * word_step;
        }
    }

    // Write the scores of word k alone to out (C,): those of starting and ending are in the first and the last word's.
    V load_word(V* out, int64_t k) {
        const T* from[L];
        places(from, static_cast<const T*>(job.emissions), job.emissions_row, job.emissions_word, k);
        gather(out, from);
        if (job.allowed) {
            const uint8_t* allowed[L];
            places(allowed, job.allowed, W * C, C, k);
            for (int64_t j = 0; j < C; j++)
                for (int lane = 0; lane < L; lane++)
                    if (!allowed[lane][j]) out[j][lane] = -INF;
        }
        I at_end = words == T(k + 1);
        V top = all(-INF);
        I sound = fine > 0;
        for (int64_t j = 0; j < C; j++) {
            V x = out[j];
            if (k == 0) x += start[j];
            x += at_end ? all(end[j]) : V{};
            out[j] = x;
            top = larger(top, x);
            sound &= x < INF;
        }
        fine = sound ? fine : V{};
        return top;
    }

    // Turn the scores of all words into factors exp(score - largest); `shift` gets the sums of the largest.
    void load_factors() {
        fine = all(1);
        for (int lane = 0; lane < L; lane++) shift[lane] = 0;
        for (int64_t k = 0; k < longest; k++) {
            V *x = e + k * C, top = load_word(x, k);
            for (int64_t j = 0; j < C; j++) x[j] = exp(x[j] - top);
            top = words > T(k) ? top : V{};
            for (int lane = 0; lane < L; lane++) shift[lane] += top[lane];
        }
    }

    // Write the forward variables of the factors, each word's brought to a sum of 1 to 2 and none below the floor.
    // Returns the last word's sum; 0 without a path, NaN if a sum was too small. `least` is 0 if something was raised.
    V forward(V& least) {
        V mass = all(1), raised = all(1), lost = V{};
        I exponents = I{};
        for (int64_t k = 0; k < longest; k++) {
            V *factor = e + k * C, *after = alpha + k * C;
            if (k > 0) multiply<false>(before, after - C, weights);
            V even = V{}, odd = V{};  // two sums, so that not every addition waits for the one before
            for (int64_t j = 0; j < C; j++) {
                V arriving = k > 0 ? before[j] : all(1), here = arriving * factor[j];
                before[j] = smaller(arriving, factor[j]);  // more than zero where a path leads
                after[j] = here;
                V sum = even + here;
                even = odd;
                odd = sum;
            }
            V sum = even + odd;
            I exponent = ((I)sum >> S::MANTISSA) - S::BIAS;
            V scale = (V)((S::BIAS - exponent) << S::MANTISSA), smallest = all(1);
            for (int64_t j = 0; j < C; j++) {
                V here = after[j] * scale;
                I reached = before[j] > 0;
                smallest = smaller(smallest, reached ? here : all(1));
                after[j] = reached ? larger(here, all(S::FLOOR)) : V{};
            }
            I present = words > T(k);
            raised = present ? smaller(raised, smallest) : raised;
            lost = (present & ~(sum >= 8 * S::FLOOR)) ? all(1) : lost;
            mass = present ? sum * scale : mass;
            exponents += present ? exponent : I{};
        }
        for (int lane = 0; lane < L; lane++) shift[lane] += exponents[lane] * 0.6931471805599453;
        least = raised;
        return lost > 0 ? (mass > 0 ? all(__builtin_nan("")) : V{}) : mass;
    }

    // pairs += the outer products of the forward variables of words k to k + 3 with the rows of the block.
    void add_pairs(int64_t k) {
        const V* a[BLOCK];
        for (int64_t n = 0; n < BLOCK; n++) a[n] = alpha + (k + n < longest ? k + n : longest - 1) * C;
        for (int64_t i = 0; i + 2 <= C; i += 2) add_rows<2>(a, i);
        if (C % 2) add_rows<1>(a, C - 1);
    }

    template <int N>
    INLINE void add_rows(const V* const* a, int64_t i) {
        V x[N][BLOCK], *__restrict sums = pairs + i * C;
        const V* __restrict right = block;
        UNROLL for (int m = 0; m < N; m++)
            UNROLL for (int n = 0; n < BLOCK; n++) x[m][n] = a[n][i + m];
        for (int64_t j = 0; j < C; j++)
            UNROLL for (int m = 0; m < N; m++) {
                V sum = sums[m * C + j];
                UNROLL for (int n = 0; n < BLOCK; n++) sum += x[m][n] * right[n * C + j];
                sums[m * C + j] = sum;
            }
    }

    void flush() {
        for (int64_t i = 0; i < C * C; i++)
            for (int lane = 0; lane < L; lane++) {
                double kept = flushed ? exact[i * L + lane] : 0;
                exact[i * L + lane] = kept + pairs[i][lane];
            }
        flushed = true;
        memset(pairs, 0, C * C * sizeof(V));
    }

    double pair(int64_t i, int lane) const { return (pairs[i][lane] + (flushed ? exact[i * L + lane] : 0)) * weights[i]; }

    // Walk back over the words. With `out`, write `factor` times their marginals where they belong, and leave the
    // pairwise sums in `pairs` and `exact`, the marginals of the first and the last words in `marginal` and `last`.
    // Returns the probability of paths that pass a variable or a transition that was raised to the floor.
    V backward(T* out, V factor, const int64_t* gold_rows) {
        bool by_transition = !out && floored_count < C;  // nobody asks for pairs but those few
        V doubt = V{};
        T* to[L];
        flushed = false;
        memset(pairs, 0, C * C * sizeof(V));
        memset(block, 0, BLOCK * C * sizeof(V));
        for (int64_t k = longest - 1; k >= 0; k--) {
            const V* forward = alpha + k * C;
            I followed = words > T(k + 1);
            if (k < longest - 1) multiply<false>(before, g, turned);
            V even = V{}, odd = V{};
            for (int64_t j = 0; j < C; j++) {
                V beta = k < longest - 1 ? (followed ? before[j] : all(1)) : all(1);
                beta = forward[j] > 0 ? beta : V{};  // what no path reaches must not set the scale
                before[j] = beta;
                V sum = even + forward[j] * beta;
                even = odd;
                odd = sum;
            }
            V scale = 1 / (even + odd);
            if (k < longest - 1) {
                V *slot = block + k % BLOCK * C, share = followed ? scale : V{};
                for (int64_t j = 0; j < C; j++) slot[j] = g[j] * share;
                if (by_transition) {
                    for (int64_t n = 0; n < floored_count; n++)
                        doubt += S::FLOOR * forward[floored[n] / C] * slot[floored[n] % C];
                } else if (k % BLOCK == 0) {
                    add_pairs(k);
                    if (k % FLUSH == 0 && k > 0) flush();
                }
            }
            V in_doubt = V{};
            const V* e_k = e + k * C;
            for (int64_t j = 0; j < C; j++) {
                V beta = before[j] * scale, m = forward[j] * beta;
                g[j] = e_k[j] * beta;
                marginal[j] = m;
                in_doubt += forward[j] <= S::FLOOR ? m : V{};
            }
            doubt += words > T(k) ? in_doubt : V{};
            for (int lane = 0; lane < L; lane++)
                if (count[lane] == k + 1)
                    for (int64_t j = 0; j < C; j++) last[j][lane] = marginal[j][lane];
            if (!out) continue;
            places(to, out, job.gradient_row, job.gradient_word, k);
            for (int lane = 0; lane < L; lane++)
                if (k >= count[lane]) to[lane] = nothing;
            scatter(to, marginal, factor);
            if (!gold_rows) continue;
            for (int lane = 0; lane < L; lane++)
                if (gold_rows[lane] >= 0 && k < count[lane]) to[lane][gold_at(lane, k)] -= factor[lane];
        }
        for (int64_t n = 0; !by_transition && n < floored_count; n++)
            for (int lane = 0; lane < L; lane++) doubt[lane] += T(pair(floored[n], lane));
        return doubt;
    }

    INLINE int64_t gold_at(int lane, int64_t k) const {
        return job.gold[row[lane] * job.gold_row + column[lane * W + k] * job.gold_word];
    }

    // The score of the given tags of a row, in double precision, and whether all of them exist.
    double gold_score(int lane, bool& exist) const {
        const T* from = static_cast<const T*>(job.emissions) + row[lane] * job.emissions_row;
        double of_words = 0, of_moves = 0;  // apart, so that neither sum waits for the other
        uint64_t previous = 0;
        for (int64_t k = 0; k < count[lane]; k++) {
            uint64_t tag = gold_at(lane, k);  // below zero it is a large number
            if (!(exist = tag < uint64_t(C))) return 0;
            of_words += from[column[lane * W + k] * job.emissions_word + tag];
            if (job.allowed && !job.allowed[(row[lane] * W + column[lane * W + k]) * C + tag]) of_words = -INF;
            of_moves += k ? scores[previous * C + tag] : start[tag];
            previous = tag;
        }
        return of_words + (of_moves + end[previous]);
    }

    void clear(int lane, bool all_words) const {
        T* out = static_cast<T*>(job.gradient) + row[lane] * job.gradient_row;
        int64_t next = 0;
        for (int64_t k = 0; k < W; k++) {
            bool kept = !all_words && next < count[lane] && column[lane * W + next] == k;
            next += kept;
            if (!kept)
                for (int64_t j = 0; j < C; j++) out[k * job.gradient_word + j] = 0;
        }
    }

    // Write the gradients by the parameters of the lanes whose factor is not zero: the expected counts of transitions,
    // starts and ends, less those of the given tags.
    void store_sums(V factor) const {
        double* to[L];
        for (int lane = 0; lane < L; lane++) {
            if (row[lane] < 0) continue;
            to[lane] = job.sums + row[lane] * (C + 2) * C;
            memset(to[lane], 0, (C + 2) * C * sizeof(double));
        }
        for (int64_t i = 0; i < C * C; i++)
            for (int lane = 0; lane < L; lane++)
                if (factor[lane] != 0) to[lane][i] = factor[lane] * pair(i, lane);
        for (int lane = 0; lane < L; lane++) {
            if (factor[lane] == 0) continue;
            for (int64_t j = 0; j < C; j++) {
                to[lane][C * C + j] = factor[lane] * marginal[j][lane];
                to[lane][C * C + C + j] = factor[lane] * last[j][lane];
            }
            int64_t previous = C;
            for (int64_t k = 0; job.gold && k < count[lane]; k++) {
                int64_t tag = gold_at(lane, k);
                to[lane][previous * C + tag] -= factor[lane];
                previous = tag;
            }
            if (job.gold) to[lane][(C + 1) * C + previous] -= factor[lane];
        }
    }

    // Values, gradients or both of a group. A row that this arithmetic cannot serve gets the mode LOG_SPACE.
    void sweep(int64_t group) {
        choose(group);
        V mass = V{}, least = V{}, doubt = V{}, factor = V{};
        T* values = static_cast<T*>(job.value);
        uint8_t mode[L];
        double score[L];
        int64_t gold_rows[L];
        if (longest) {
            load_factors();
            mass = forward(least);
        }
        for (int lane = 0; lane < L; lane++) {
            mode[lane] = NO_GRADIENT;
            gold_rows[lane] = -1;
            if (!count[lane]) continue;
            bool exist = true;
            score[lane] = job.gold ? gold_score(lane, exist) : 0;
            if (!exist) mode[lane] = NO_SUCH_TAG;
            // The value is not a number: a training loop sees it, and skips the step.
            else if (!(fine[lane] > 0) || (!transitions_fine && count[lane] > 1)) mode[lane] = LOG_SPACE;
            else if (mass[lane] == 0) mode[lane] = NO_PATH;
            else if (score[lane] > -INF) mode[lane] = mass[lane] > 0 ? SCALED : LOG_SPACE;
            if (mode[lane] != SCALED || !job.sums) continue;
            factor[lane] = job.gold ? 1 : -1;
            gold_rows[lane] = job.gold ? row[lane] : -1;
        }
        bool doubtful = floored_count > 0;
        for (int lane = 0; lane < L; lane++) doubtful |= count[lane] && least[lane] < S::FLOOR;
        if (longest && (job.sums || doubtful))
            doubt = backward(job.sums ? static_cast<T*>(job.gradient) : nullptr, factor, gold_rows);
        for (int lane = 0; lane < L; lane++) {
            if (row[lane] < 0) continue;
            if (mode[lane] == SCALED && !(doubt[lane] <= S::NEGLIGIBLE)) mode[lane] = LOG_SPACE;
            if (mode[lane] != SCALED) factor[lane] = 0;
            if (mode[lane] != SCALED && mode[lane] != NO_GRADIENT) __atomic_store_n(&job.unserved, 1, __ATOMIC_RELAXED);
            double z = count[lane] ? shift[lane] + std::log(double(mass[lane])) + (count[lane] - 1) * double(top_score) : 0;
            T none = count[lane] ? -INF : T(0);
            values[row[lane]] = mode[lane] != SCALED ? none : T(job.gold ? score[lane] - z : z);
            job.mode[row[lane]] = mode[lane];
            if (job.sums && (mode[lane] != SCALED || count[lane] < W)) clear(lane, mode[lane] != SCALED);
        }
        if (job.sums) store_sums(factor);
    }

    // The best paths of a group (Viterbi 1967). Each word's scores are brought to a largest of 0. There are no
    // back-pointers: the way back looks for the maximum again, in the one row of `into` that it needs.
    void search(int64_t group) {
        choose(group);
        fine = all(1);
        double total[L] = {};
        for (int64_t k = 0; k < longest; k++) {
            V *x = e + k * C, top = load_word(x, k);
            if (k > 0) {
                multiply<true>(before, x - C, scores);
                top = all(-INF);
                for (int64_t j = 0; j < C; j++) top = larger(top, x[j] += before[j]);
            }
            V offset = top > -INF ? top : V{};
            for (int64_t j = 0; j < C; j++) x[j] -= offset;
            top = words > T(k) ? top : V{};
            for (int lane = 0; lane < L; lane++) total[lane] += top[lane];
        }
        T* values = static_cast<T*>(job.value);
        for (int lane = 0; lane < L; lane++) {
            if (row[lane] < 0) continue;
            bool found = fine[lane] > 0 && total[lane] > -INF && (transitions_fine || count[lane] < 2);
            values[row[lane]] = found ? T(total[lane]) : count[lane] ? -INF : T(0);
            if (!found && count[lane]) __atomic_store_n(&job.unserved, 1, __ATOMIC_RELAXED);
            if (count[lane] < W || !found)
                for (int64_t k = 0; k < W; k++) job.paths[row[lane] * W + k] = job.padding;
        }
        const T* from[L];
        I tag = I{};
        for (int64_t k = longest - 1; k >= 0; k--) {
            for (int lane = 0; lane < L; lane++) from[lane] = into + (k + 1 < count[lane] ? tag[lane] : C) * C;
            gather(before, from);
            V best = e[k * C] + before[0];
            tag = I{};
            for (int64_t j = 1; j < C; j++) {
                V here = e[k * C + j] + before[j];
                tag = here > best ? I{} + int(j) : tag;
                best = larger(best, here);
            }
            for (int lane = 0; lane < L; lane++)
                if (k < count[lane]) job.paths[row[lane] * W + column[lane * W + k]] = tag[lane];
        }
    }

    // out[j] = log sum_i exp(x[i] + matrix[i, j])
    void log_multiply(V* out, const V* x, const T* matrix) {
        multiply<true>(out, x, matrix);
        for (int64_t j = 0; j < C; j++) {
            V top = out[j] > -INF ? out[j] : V{}, sum = V{};
            for (int64_t i = 0; i < C; i++) sum += exp(x[i] + matrix[i * C + j] - top);
            for (int lane = 0; lane < L; lane++) out[j][lane] = top[lane] + std::log(sum[lane]);
        }
    }

    // Log forward or backward variables of rows whose words stand before what is masked: as in lattice.py.
    void log_sweep(int64_t group) {
        choose(group);
        fine = transitions_fine ? all(1) : words > T(1) ? V{} : all(1);
        for (int64_t n = 0; n < W; n++) {
            int64_t k = job.backwards ? W - 1 - n : n;
            I moves = job.backwards ? words > T(k + 1) : words > T(k);
            if (n == 0)
                for (int64_t j = 0; j < C; j++) g[j] = V{};
            if (job.backwards) {
                if (k + 1 < longest) {
                    load_word(marginal, k + 1);
                    for (int64_t j = 0; j < C; j++) marginal[j] += g[j];
                    log_multiply(before, marginal, into);
                    for (int64_t j = 0; j < C; j++) g[j] = moves ? before[j] : V{};
                }
            } else if (k < longest) {
                load_word(marginal, k);
                if (k > 0) log_multiply(before, g, scores);
                for (int64_t j = 0; j < C; j++) g[j] = moves ? (k > 0 ? before[j] + marginal[j] : marginal[j]) : g[j];
            }
            for (int lane = 0; lane < L; lane++)
                if (row[lane] >= 0)
                    for (int64_t j = 0; j < C; j++)
                        job.logs[(row[lane] * W + k) * C + j] = fine[lane] > 0 ? g[j][lane] : __builtin_nan("");
        }
    }
};

template <class T>
void run(Job* job, void (Kernel<T>::*work)(int64_t)) {
    NoSubnormals scope;
    Kernel<T> kernel(*job);
    for (;;) {
        int64_t chunk = __atomic_fetch_add(&job->next_chunk, 1, __ATOMIC_RELAXED), group = chunk * job->chunk;
        if (chunk >= job->chunks) return;
        for (; group < (chunk + 1) * job->chunk && group < job->parts; group++) (kernel.*work)(group);
    }
}

}  // namespace

extern "C" {
void crf_sweep_float32(Job* job) { run(job, &Kernel<float>::sweep); }
void crf_sweep_float64(Job* job) { run(job, &Kernel<double>::sweep); }
void crf_decode_float32(Job* job) { run(job, &Kernel<float>::search); }
void crf_decode_float64(Job* job) { run(job, &Kernel<double>::search); }
void crf_log_sweep_float64(Job* job) { run(job, &Kernel<double>::log_sweep); }
}
