// The forward pass of a GLM over the sequences that it holds.
//
// In: packed weights, tokens with their 2-D positions. Out: logits. Keys and values lie in pages of 32 tokens that
// sequences share until one of them writes; nothing is computed twice.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "glmkit.h"
#include "kernels.h"
#include "pool.h"

namespace glmkit {
namespace {

thread_local std::string error;

#if defined(__aarch64__)
bool has_dotprod() {
#if defined(__APPLE__)
    return true;  // of all of its processors
#elif defined(__linux__)
    return getauxval(AT_HWCAP) & 1 << 20;  // HWCAP_ASIMDDP, which older headers do not name
#else
    return false;
#endif
}
#endif

const Kernels* best_kernels() {
    const char* wanted = std::getenv("GLMKIT_INSTRUCTIONS");
#if defined(__x86_64__) && !defined(GLMKIT_EMULATE_NEON)
    std::string most = wanted ? wanted : "amx";
    __builtin_cpu_init();
    unsigned a, b, c, d;  // older compilers do not know the name of F16C
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512vnni");
#if defined(GLMKIT_EMULATE_AVX512)
    avx512 = true;
#endif
    bool bfloat = avx512 && __builtin_cpu_supports("avx512bf16");
    if (most == "amx" && bfloat && amx_kernels()) return amx_kernels();
    if ((most == "amx" || most == "avx512bf16") && bfloat && avx512bf16_kernels()) return avx512bf16_kernels();
    if ((most.starts_with("avx512") || most == "amx") && avx512 && avx512_kernels()) return avx512_kernels();
    bool vnni = avx2 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1 << 4;
    if (most != "portable" && most != "avx2" && vnni && avxvnni_kernels()) return avxvnni_kernels();
    if (most != "portable" && avx2 && avx2_kernels()) return avx2_kernels();
#elif defined(__aarch64__) || defined(GLMKIT_EMULATE_NEON)
    std::string most = wanted ? wanted : "dotprod";
#if defined(__aarch64__)
    if (most == "dotprod" && has_dotprod() && dotprod_kernels()) return dotprod_kernels();
#endif
    if (most != "portable") return neon_kernels();
#endif
    return portable_kernels();
}

// Whether so many products are done sooner by one thread than shared: waiting for each other five to ten times a layer costs
// microseconds, and milliseconds where other programs hold the cores.
#if !defined(GLMKIT_LITTLE)  // tests share all work
#define GLMKIT_LITTLE 16'000'000
#endif
bool is_little(int64_t products) { return products < GLMKIT_LITTLE; }

// Memory that begins at a cache line; new memory is zero. On Linux much of it is asked for in large pages, and given back at once.
class Buffer {
  public:
    void* reserve(int64_t bytes) {
        if (bytes > size_) {
            memory_ = bytes < LARGE ? few(size_t(bytes)) : many(size_t(bytes));
            size_ = bytes;
        }
        return memory_.get();
    }
    float* floats(int64_t n) { return static_cast<float*>(reserve(n * 4)); }

  private:
    struct Free {
        size_t mapped;
        void operator()(char* p) const {
#if defined(MADV_HUGEPAGE)
            if (mapped) return void(munmap(p, mapped));
#endif
            ::operator delete(p, std::align_val_t(64));
        }
    };
    using Memory = std::unique_ptr<char, Free>;

    static constexpr int64_t LARGE = 2 << 20;

    static Memory few(size_t bytes) {
        Memory memory(static_cast<char*>(::operator new(bytes, std::align_val_t(64))), Free{0});
        std::memset(memory.get(), 0, bytes);
        return memory;
    }
#if defined(MADV_HUGEPAGE)
    static Memory many(size_t bytes) {
        void* found = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (found == MAP_FAILED) throw std::bad_alloc();
        madvise(found, bytes, MADV_HUGEPAGE);  // a wish: whether it is granted changes no result
        return {static_cast<char*>(found), Free{bytes}};
    }
#else
    static Memory many(size_t bytes) { return few(bytes); }
#endif

    Memory memory_{nullptr, Free{0}};
    int64_t size_ = 0;
};

using Page = std::shared_ptr<Buffer>;

struct Sequence {
    std::vector<Page> pages;
    int64_t length = 0;
};

struct Layer {
    Matrix qkv, dense, up, down;
    const float *norm1[2] = {}, *norm2[2] = {};
    const float *qkv_bias = nullptr, *dense_bias = nullptr, *up_bias = nullptr, *down_bias = nullptr;
};

struct Feed {
    Sequence* sequence;
    int64_t first, count, before, prefix, num_logits;
    std::vector<const void*> pages;
};

struct Queries {  // what attention does at once: up to QUERIES tokens of one feed (PROMPT of its part A), one head
    int32_t feed, token;
};

constexpr int64_t SPARE = 64 << 20;  // bytes of pages that are kept for the next sequence
constexpr int64_t PROMPT = 128, LEAST_PROMPT = 16;  // tokens of part A, which all see the same; of fewer as of others

}  // namespace
}  // namespace glmkit

using namespace glmkit;

struct glmkit_model {
    glmkit_sizes sizes;
    const Kernels& kernels = *best_kernels();
    Pool pool;
    Matrix words;
    const Matrix* floats = nullptr;  // one of bfloat16, if there is any: what reads rows may be that
    std::vector<Layer> layers;
    const float *final_norm[2] = {}, *positions = nullptr, *block_positions = nullptr;
    std::vector<std::unique_ptr<Buffer>> spare;  // pages, up to its capacity; it outlives the sequences
    std::map<int64_t, Sequence> sequences;
    int64_t next_sequence = 0, page_bytes, head_size, padded_head, number;
    std::mutex lock;
    bool is_deleted = false;
    Buffer hidden, normed, qkv, context, wide, last, scratch;
    struct {
        Buffer quantized, scales, sums;
    } prepared[2];

    glmkit_model(const glmkit_sizes& s, int threads) : sizes(s), pool(threads), layers(size_t(s.layers)) {
        head_size = s.hidden / s.heads;
        padded_head = padded(head_size, 16);
        number = s.half_cache ? 2 : 4;
        page_bytes = int64_t(s.layers) * 2 * s.heads * PAGE * padded_head * number;
        spare.reserve(size_t(SPARE / page_bytes));
        auto shape = [](Matrix& m, int64_t rows, int64_t columns) { m.rows = rows, m.columns = columns; };
        shape(words, s.vocabulary, s.hidden);
        for (Layer& layer : layers) {
            shape(layer.qkv, 3 * int64_t(s.hidden), s.hidden);
            shape(layer.dense, s.hidden, s.hidden);
            shape(layer.up, s.mlp, s.hidden);
            shape(layer.down, s.hidden, s.mlp);
        }
    }

    Sequence& sequence(int64_t handle) {
        auto found = sequences.find(handle);
        if (found == sequences.end())
            throw std::invalid_argument("there is no sequence " + std::to_string(handle) + " (never opened, or closed)");
        return found->second;
    }

    // What is in it is lost; pages that nobody holds any more are used again.
    Page new_page() {
        std::unique_ptr<Buffer> page;
        if (spare.empty()) {
            page = std::make_unique<Buffer>();
            page->reserve(page_bytes);
        } else {
            page = std::move(spare.back());
            spare.pop_back();
        }
        return {page.release(), [this](Buffer* unused) {
                    std::unique_ptr<Buffer> owned(unused);
                    if (spare.size() < spare.capacity()) spare.push_back(std::move(owned));
                }};
    }

    // Offset in bytes of a head's keys (which = 0) or values (1) in a page.
    int64_t offset(int64_t layer, int64_t which, int64_t head) const {
        return ((layer * 2 + which) * sizes.heads + head) * PAGE * padded_head * number;
    }

    // Makes room for `count` more tokens; a page that others hold too is copied first.
    void make_room(Sequence& s, int64_t count) {
        if (s.length % PAGE) {
            Page& open = s.pages[size_t(s.length / PAGE)];
            if (open.use_count() > 1) {
                Page copy = new_page();
                std::memcpy(copy->reserve(0), open->reserve(0), size_t(page_bytes));
                open = copy;
            }
        }
        while (int64_t(s.pages.size()) * PAGE < s.length + count) s.pages.push_back(new_page());
    }

    void check_complete() const {
        bool whole = words.data && final_norm[0] && final_norm[1] && positions && (!sizes.block_positions || block_positions);
        for (const Layer& l : layers)
            whole = whole && l.qkv.data && l.dense.data && l.up.data && l.down.data && l.norm1[0] && l.norm1[1] &&
                    l.norm2[0] && l.norm2[1] && l.qkv_bias && l.dense_bias && l.up_bias && l.down_bias;
        if (!whole) throw std::invalid_argument("weights are missing: set every matrix and vector first");
    }

    void check_id(int32_t id, int64_t media_rows) const {
        int64_t row = int64_t(id) - GLMKIT_FIRST_MEDIA_ID;
        if (row >= 0 && row >= media_rows)
            throw std::invalid_argument("the row " + std::to_string(row) + " of embeddings of media, of which there are " +
                                        std::to_string(media_rows));
        if (id < 0 || (row < 0 && id >= sizes.vocabulary))
            throw std::invalid_argument("the id " + std::to_string(id) + " in a vocabulary of " +
                                        std::to_string(sizes.vocabulary));
    }

    void forward(std::vector<Feed>& feeds, int64_t total, const int32_t* ids, const int32_t* position_ids,
                 const int32_t* block_ids, const float* media, float* states, float* logits);
    void head(const float* states, int64_t n, float* logits);
    void likeliest(const float* logits, int64_t n, const uint8_t* const* barred, const int64_t* counts, int64_t* tokens,
                   double* log_probabilities);
    Rows rows(const float* values, int64_t n, int64_t columns, int which = 0);
    bool tiled(int64_t n, const Matrix& m) const;
    bool prepares(int64_t n, const Matrix& m) const { return m.integer() || tiled(n, m); }  // whether it reads other than floats
    void prepare(int thread, const Matrix& m, const Rows& rows, bool alone = false);
    void project(int thread, const Matrix& m, const Rows& rows, const Result& result);
    void keep(const Feed& feed, int64_t layer, int64_t token, int64_t first_head, int64_t last_head, const float* row);
};

// The n rows [n, padded columns] with room for what matrices want them to be; tiles have 16 rows, and up to two bfloat16 a
// number.
Rows glmkit_model::rows(const float* values, int64_t n, int64_t columns, int which) {
    auto& [quantized, scales, sums] = prepared[which];
    int64_t numbers = padded(n, 16) * columns, bytes = floats && tiled(n, *floats) ? 4 : 1;
    return {n, values, static_cast<int8_t*>(quantized.reserve(numbers * bytes)), scales.floats(numbers / GROUP4),
            sums.floats(numbers / GROUP4)};
}

bool glmkit_model::tiled(int64_t n, const Matrix& m) const {
    return kernels.tiled && kernels.tiled(m, n);
}

// Makes of rows what the matrix wants them to be, on all threads, or each `alone` its own.
void glmkit_model::prepare(int thread, const Matrix& m, const Rows& rows, bool alone) {
    int64_t n = rows.count, threads = pool.threads();
    if (!prepares(n, m)) return;
    if (alone) return kernels.prepare(m, rows, 0, n);
    pool.share(thread, n, padded(n, threads) / threads,
               [&](int64_t first, int64_t last) { kernels.prepare(m, rows, first, last); });
}

// result = m x rows, which are prepared, on all threads.
void glmkit_model::project(int thread, const Matrix& m, const Rows& rows, const Result& result) {
    int64_t n = rows.count, threads = pool.threads(), columns = m.padded_columns();
    bool tiles = tiled(n, m);
    // Rows with which weights are multiplied before the next rows are; tiles are so fast that activations should stay in a
    // core's cache while weights go by.
    int64_t some = 512, bytes = columns * (m.format == Format::bfloat16 ? 4 : 1);
    if (tiles) some = std::max<int64_t>(128, (1 << 20) / bytes / 32 * 32);
    int64_t blocks = m.blocks(), least = std::max<int64_t>(1, blocks / (64 * threads));
    if (tiles || n > 8) least = padded(least, 4);  // many rows are multiplied with four blocks at a time
    for (int64_t start = 0; start < n; start += some)
        pool.share(thread, blocks, least, [&](int64_t first, int64_t last) {
            kernels.multiply(m, rows, start, std::min(start + some, n), first, last, result);
        });
}

// Stores the keys and values of one token, of some heads; `row` is its queries, keys and values.
void glmkit_model::keep(const Feed& feed, int64_t layer, int64_t token, int64_t first_head, int64_t last_head, const float* row) {
    int64_t index = feed.before + token, place = index % PAGE;
    char* page = static_cast<char*>(feed.sequence->pages[size_t(index / PAGE)]->reserve(0));
    for (int64_t head = first_head; head < last_head; ++head) {
        const float *key = row + sizes.hidden + head * head_size, *value = key + sizes.hidden;
        char *keys = page + offset(layer, 0, head), *values = page + offset(layer, 1, head) + place * padded_head * number;
        if (sizes.half_cache) {
            uint16_t some[64];
            for (int64_t d = 0; d < head_size; d += 64) {
                int64_t count = std::min<int64_t>(64, head_size - d);
                kernels.to_half(key + d, some, count);
                for (int64_t i = 0; i < count; ++i) reinterpret_cast<uint16_t*>(keys)[(d + i) * PAGE + place] = some[i];
            }
            kernels.to_half(value, reinterpret_cast<uint16_t*>(values), head_size);
        } else {
            for (int64_t d = 0; d < head_size; ++d) reinterpret_cast<float*>(keys)[d * PAGE + place] = key[d];
            std::memcpy(values, value, size_t(head_size) * 4);
        }
    }
}

void glmkit_model::forward(std::vector<Feed>& feeds, int64_t total, const int32_t* ids, const int32_t* position_ids,
                           const int32_t* block_ids, const float* media, float* states, float* logits) {
    int64_t width = sizes.hidden, row = padded(width, COLUMNS), wide_row = padded(sizes.mlp, COLUMNS), most = 0, wanted = 0;
    std::vector<Queries> queries, prompts;
    bool fed_little = true;  // of every sequence so few tokens that who attends to a head also stores its keys and values
    for (size_t f = 0; f < feeds.size(); ++f) {
        Feed& feed = feeds[f];
        for (const Page& page : feed.sequence->pages) feed.pages.push_back(page->reserve(0));
        most = std::max(most, feed.before + feed.count);
        wanted += feed.num_logits;
        bool prompt = kernels.attend_prompt && sizes.half_cache && feed.prefix >= LEAST_PROMPT;
        int64_t written = prompt ? feed.prefix : 0;
        for (int64_t token = 0; token < written; token += PROMPT) prompts.push_back({int32_t(f), int32_t(token)});
        for (int64_t token = written; token < feed.count; token += QUERIES) queries.push_back({int32_t(f), int32_t(token)});
        fed_little = fed_little && feed.count <= QUERIES;
    }
    std::vector<int32_t> feed_of(static_cast<size_t>(total));
    for (size_t f = 0; f < feeds.size(); ++f)
        for (int64_t i = 0; i < feeds[f].count; ++i) feed_of[size_t(feeds[f].first + i)] = int32_t(f);

    int64_t score_row = QUERIES * padded(most, PAGE);
    int64_t own = score_row + 2 * QUERIES * padded_head;
    // The row of a single token is made by every thread for itself, which is sooner done than waited for.
    bool alone = total == 1;
    int64_t copies = alone ? pool.threads() : 1;
    float *x = hidden.floats(total * width), *y = normed.floats(total * copies * row), *c = context.floats(total * row);
    float* q = qkv.floats(total * 3 * width);
    // What the MLP widens to is prepared where it is made.
    bool at_once = std::all_of(layers.begin(), layers.end(),
                               [&](const Layer& layer) { return tiled(total, layer.up) && tiled(total, layer.down); });
    float* w = at_once ? nullptr : wide.floats(total * wide_row);
    float* z = states ? states : last.floats(wanted * row);
    int64_t state_row = states ? width : row;
    Rows normed_rows = rows(y, total * copies, row), wide_rows = rows(w, total * copies, wide_row, 1);
    Rows last_rows = rows(z, wanted, row);
    float* private_memory = scratch.floats(pool.threads() * own);
    float scale = 1 / std::sqrt(float(head_size));
    auto activation = Activation(sizes.activation);

    pool.run([&](int thread) {
        float* scores = private_memory + thread * own;
        float *queries_in = scores + score_row, *context_out = queries_in + QUERIES * padded_head;
        int64_t few = padded(total, pool.threads()) / pool.threads();
        // Of rows that are the same for all: where this thread prepares them, if each does that for itself.
        auto own_copy = [&](Rows some, const float* values, int64_t columns) {
            some.count = total, some.values = values;
            int64_t at = alone ? thread : 0;
            some.quantized += at * columns, some.scales += at * columns / GROUP4, some.sums += at * columns / GROUP4;
            return some;
        };
        float* y_own = y + (alone ? thread : 0) * row;
        Rows own_normed = own_copy(normed_rows, y_own, row), own_context = own_copy(normed_rows, c, row);
        Rows own_wide = own_copy(wide_rows, w, wide_row);
        auto normalize = [&](const float* const norm[2], const Matrix& m) {
            bool wanted_otherwise = prepares(total, m);
            auto make = [&](int64_t first, int64_t end) {
                for (int64_t t = first; t < end; ++t) {
                    kernels.normalize(x + t * width, norm[0], norm[1], sizes.epsilon, width, y_own + t * row);
                    if (wanted_otherwise) kernels.prepare(m, own_normed, t, t + 1);
                }
            };
            if (alone) return make(0, total);
            pool.share(thread, total, few, make);
        };
        pool.share(thread, total, few, [&](int64_t first, int64_t end) {
            for (int64_t t = first; t < end; ++t) {
                float* out = x + t * width;
                int64_t medium = int64_t(ids[t]) - GLMKIT_FIRST_MEDIA_ID;
                if (medium >= 0)
                    std::memcpy(out, media + medium * width, size_t(width) * 4);
                else
                    unpack_row(words, ids[t], out);
                const float* position = positions + position_ids[t] * width;
                for (int64_t i = 0; i < width; ++i) out[i] += position[i];
                if (!sizes.block_positions) continue;
                const float* block = block_positions + block_ids[t] * width;
                for (int64_t i = 0; i < width; ++i) out[i] += block[i];
            }
        });
        for (int64_t l = 0; l < sizes.layers; ++l) {
            const Layer& layer = layers[size_t(l)];
            normalize(layer.norm1, layer.qkv);
            project(thread, layer.qkv, own_normed, {q, 3 * width, layer.qkv_bias});
            if (!fed_little)
                pool.share(thread, total, few, [&](int64_t first, int64_t end) {
                    for (int64_t t = first; t < end; ++t) {
                        const Feed& feed = feeds[size_t(feed_of[size_t(t)])];
                        keep(feed, l, t - feed.first, 0, sizes.heads, q + t * 3 * width);
                    }
                });
            if (!prompts.empty())
                pool.share(thread, int64_t(prompts.size()) * sizes.heads, 1, [&](int64_t first, int64_t end) {
                    for (int64_t item = first; item < end; ++item) {
                        const Queries& some = prompts[size_t(item / sizes.heads)];
                        int64_t head = item % sizes.heads;
                        const Feed& feed = feeds[size_t(some.feed)];
                        int64_t t = feed.first + some.token, in = head * head_size;
                        kernels.attend_prompt({feed.pages.data(), offset(l, 0, head), offset(l, 1, head)}, !layer.qkv.integer(),
                                              q + t * 3 * width + in, 3 * width, std::min(PROMPT, feed.prefix - some.token),
                                              feed.prefix, head_size, scale, c + t * row + in, row);
                    }
                });
            pool.share(thread, int64_t(queries.size()) * sizes.heads, 1, [&](int64_t first, int64_t end) {
                for (int64_t item = first; item < end; ++item) {
                    // Heads change slowest, so that neighbours read the same keys.
                    const Queries& some = queries[size_t(item % int64_t(queries.size()))];
                    int64_t head = item / int64_t(queries.size());
                    const Feed& feed = feeds[size_t(some.feed)];
                    int count = int(std::min<int64_t>(QUERIES, feed.count - some.token));
                    int64_t visible[QUERIES];
                    for (int i = 0; i < count; ++i) {
                        int64_t token = some.token + i;
                        if (fed_little) keep(feed, l, token, head, head + 1, q + (feed.first + token) * 3 * width);
                        visible[i] = feed.before + std::max(feed.prefix, token + 1);
                        std::memcpy(queries_in + i * padded_head, q + (feed.first + token) * 3 * width + head * head_size,
                                    size_t(head_size) * 4);
                    }
                    Heads heads{feed.pages.data(), offset(l, 0, head), offset(l, 1, head)};
                    kernels.attend(heads, sizes.half_cache, queries_in, count, visible, padded_head, scale, scores,
                                   context_out);
                    for (int i = 0; i < count; ++i)
                        std::memcpy(c + (feed.first + some.token + i) * row + head * head_size,
                                    context_out + i * padded_head, size_t(head_size) * 4);
                }
            });
            prepare(thread, layer.dense, own_context, alone);
            project(thread, layer.dense, own_context, {x, width, layer.dense_bias, true});
            normalize(layer.norm2, layer.up);
            Result widened{w, wide_row, layer.up_bias, false, true, activation};
            if (at_once) widened.next_matrix = &layer.down, widened.next = &wide_rows;
            project(thread, layer.up, own_normed, widened);
            if (!at_once) prepare(thread, layer.down, own_wide, alone);
            project(thread, layer.down, own_wide, {x, width, layer.down_bias, true});
        }
        if (thread == 0) {
            float* out = z;
            for (const Feed& feed : feeds)
                for (int64_t i = feed.count - feed.num_logits; i < feed.count; ++i, out += state_row)
                    kernels.normalize(x + (feed.first + i) * width, final_norm[0], final_norm[1], sizes.epsilon, width, out);
        }
        pool.wait();
        if (!logits) return;
        prepare(thread, words, last_rows);
        project(thread, words, last_rows, {logits, sizes.vocabulary});
    }, is_little(total * int64_t(sizes.layers) * width * (4 * width + 2 * sizes.mlp) + wanted * width * sizes.vocabulary));
}

void glmkit_model::head(const float* states, int64_t n, float* logits) {
    int64_t width = sizes.hidden, row = padded(width, COLUMNS);
    float* z = last.floats(n * row);
    for (int64_t i = 0; i < n; ++i) std::memcpy(z + i * row, states + i * width, size_t(width) * 4);
    Rows last_rows = rows(z, n, row);
    pool.run([&](int thread) {
        prepare(thread, words, last_rows);
        project(thread, words, last_rows, {logits, sizes.vocabulary});
    }, is_little(n * width * sizes.vocabulary));
}

// Logits are gone through in parts of one size, so that threads change no bit.
void glmkit_model::likeliest(const float* logits, int64_t n, const uint8_t* const* barred, const int64_t* counts,
                             int64_t* tokens, double* log_probabilities) {
    constexpr int64_t PART = 4096;
    int64_t parts = padded(sizes.vocabulary, PART) / PART;
    std::vector<Peak> peaks(size_t(n * parts), Peak{-INFINITY, 0});
    pool.run([&](int thread) {
        pool.share(thread, n * parts, 1, [&](int64_t start, int64_t end) {
            for (int64_t item = start; item < end; ++item) {
                int64_t i = item / parts, first = item % parts * PART, count = std::min(PART, counts[i] - first);
                if (count > 0) peaks[size_t(item)] = kernels.peak(logits + i * sizes.vocabulary + first, barred[i] + first, count);
            }
        });
    }, n == 1);
    for (int64_t i = 0; i < n; ++i) {
        const Peak* first = &peaks[size_t(i * parts)];
        const Peak* best = std::max_element(first, first + parts, [](const Peak& a, const Peak& b) { return a.best < b.best; });
        double total = 0;
        for (const Peak* one = first; one < first + parts; ++one)
            total += one->best > -INFINITY ? one->total * std::exp(double(one->best) - best->best) : one->total;
        const float* row = logits + i * sizes.vocabulary;
        int64_t token = (best - first) * PART;
        while (token < counts[i] - 1 && (barred[i][token] || row[token] != best->best)) ++token;
        tokens[i] = token;
        log_probabilities[i] = best->best > -INFINITY ? -std::log(total) : -INFINITY;
    }
}

namespace {

template <typename Work>
int64_t guarded(const Work& work) {
    try {
        return work();
    } catch (const std::bad_alloc&) {
        error = "not enough memory";
        return -2;
    } catch (const std::exception& problem) {
        error = problem.what();
        return -1;
    }
}

std::string number(int64_t value) { return std::to_string(value); }

}  // namespace

extern "C" {

int32_t glmkit_interface() { return GLMKIT_INTERFACE; }

const char* glmkit_error() { return error.c_str(); }

const char* glmkit_instructions() { return best_kernels()->name; }

glmkit_model* glmkit_new(const glmkit_sizes* s, int32_t threads) {
    glmkit_model* made = nullptr;
    guarded([&]() -> int64_t {
        bool good = s->layers > 0 && s->hidden > 0 && s->heads > 0 && s->mlp > 0 && s->vocabulary > 0 && s->positions > 0;
        if (!good || s->hidden % s->heads || s->activation < 0 || s->activation > 2 || threads < 1 || threads > 1024)
            throw std::invalid_argument("sizes that no GLM has");
        made = new glmkit_model(*s, threads);
        return 0;
    });
    return made;
}

void glmkit_delete(glmkit_model* model) {
    {
        std::lock_guard guard(model->lock);
        model->is_deleted = true;
        if (!model->sequences.empty()) return;
    }
    delete model;
}

int32_t glmkit_set_matrix(glmkit_model* model, int32_t role, int32_t layer, int32_t format, const void* data,
                          const void* scales, const uint8_t* zeros, const uint8_t* firsts, const uint32_t* strays) {
    return int32_t(guarded([&]() -> int64_t {
        std::lock_guard guard(model->lock);
        if (role < 0 || role > 4 || layer < 0 || (role && layer >= model->sizes.layers) || format < 0 || format > 4)
            throw std::invalid_argument("no such matrix or format");
        Layer& at = model->layers[size_t(role ? layer : 0)];
        Matrix* places[] = {&model->words, &at.qkv, &at.dense, &at.up, &at.down};
        Matrix& m = *places[role];
        m.format = Format(format), m.data = data, m.scales = scales, m.zeros = zeros, m.firsts = firsts, m.begins = strays;
        m.exact = !model->sizes.half_cache;
        bool coded = m.format == Format::bfloat16;
        if (!data || (m.integer() && !scales) || (m.format == Format::int4 && !zeros) || (coded && (!firsts || !strays)))
            throw std::invalid_argument("a matrix without its numbers");
        if (coded) model->floats = &m;
        return 0;
    }));
}

int32_t glmkit_set_vector(glmkit_model* model, int32_t role, int32_t layer, const float* data) {
    return int32_t(guarded([&]() -> int64_t {
        std::lock_guard guard(model->lock);
        if (role < 0 || role > 11 || layer < 0 || (role < 8 && layer >= model->sizes.layers) || !data)
            throw std::invalid_argument("no such vector");
        Layer& at = model->layers[size_t(role < 8 ? layer : 0)];
        const float** places[] = {&at.norm1[0],    &at.norm1[1],  &at.qkv_bias,           &at.dense_bias,
                                  &at.norm2[0],    &at.norm2[1],  &at.up_bias,            &at.down_bias,
                                  &model->final_norm[0], &model->final_norm[1], &model->positions, &model->block_positions};
        *places[role] = data;
        return 0;
    }));
}

int64_t glmkit_open(glmkit_model* model) {
    return guarded([&] {
        std::lock_guard guard(model->lock);
        model->sequences[model->next_sequence];
        return model->next_sequence++;
    });
}

int64_t glmkit_fork(glmkit_model* model, int64_t sequence) {
    return guarded([&] {
        std::lock_guard guard(model->lock);
        Sequence copy = model->sequence(sequence);
        model->sequences.emplace(model->next_sequence, std::move(copy));
        return model->next_sequence++;
    });
}

int32_t glmkit_truncate(glmkit_model* model, int64_t sequence, int64_t length) {
    return int32_t(guarded([&]() -> int64_t {
        std::lock_guard guard(model->lock);
        Sequence& s = model->sequence(sequence);
        if (length < 0 || length > s.length)
            throw std::invalid_argument("length " + number(length) + " of a sequence of " + number(s.length) + " tokens");
        s.length = length;
        s.pages.resize(size_t(padded(length, PAGE) / PAGE));
        return 0;
    }));
}

int32_t glmkit_close(glmkit_model* model, int64_t sequence) {
    bool is_last = false;
    int64_t status = guarded([&]() -> int64_t {
        std::lock_guard guard(model->lock);
        model->sequence(sequence);
        model->sequences.erase(sequence);
        is_last = model->is_deleted && model->sequences.empty();
        return 0;
    });
    if (is_last) delete model;
    return int32_t(status);
}

int64_t glmkit_length(glmkit_model* model, int64_t sequence) {
    return guarded([&] {
        std::lock_guard guard(model->lock);
        return model->sequence(sequence).length;
    });
}

int64_t glmkit_cache_bytes(glmkit_model* model) {
    return guarded([&] {
        std::lock_guard guard(model->lock);
        std::map<const Buffer*, int> pages;
        for (auto& [handle, sequence] : model->sequences)
            for (auto& page : sequence.pages) pages[page.get()] = 1;
        return int64_t(pages.size()) * model->page_bytes;
    });
}

int32_t glmkit_forward(glmkit_model* model, int32_t n, const int64_t* sequences, const int32_t* counts,
                       const int32_t* prefixes, const int32_t* num_logits, const int32_t* ids, const int32_t* positions,
                       const int32_t* blocks, const float* media, int64_t media_rows, float* states, float* logits) {
    return int32_t(guarded([&]() -> int64_t {
        std::lock_guard guard(model->lock);
        model->check_complete();
        if (n <= 0) return 0;
        std::vector<Feed> feeds;
        int64_t total = 0;
        for (int32_t f = 0; f < n; ++f) {
            Sequence& s = model->sequence(sequences[f]);
            for (const Feed& other : feeds)
                if (other.sequence == &s)
                    throw std::invalid_argument("sequence " + number(sequences[f]) + " is fed twice at once");
            if (counts[f] < 1 || prefixes[f] < 0 || prefixes[f] > counts[f] || num_logits[f] < 0 ||
                num_logits[f] > counts[f] || (prefixes[f] && s.length))
                throw std::invalid_argument("a feed of " + number(counts[f]) + " tokens with a prefix of " +
                                            number(prefixes[f]) + " and " + number(num_logits[f]) +
                                            " logits into a sequence of " + number(s.length));
            feeds.push_back({&s, total, counts[f], s.length, prefixes[f], num_logits[f], {}});
            total += counts[f];
        }
        for (int64_t t = 0; t < total; ++t) {
            model->check_id(ids[t], media ? media_rows : 0);
            int64_t highest = model->sizes.positions - 1;
            if (positions[t] < 0 || positions[t] > highest || blocks[t] < 0 || blocks[t] > highest)
                throw std::invalid_argument("the position (" + number(positions[t]) + ", " + number(blocks[t]) +
                                            "); this model's tables end at " + number(highest));
        }
        for (Feed& feed : feeds) model->make_room(*feed.sequence, feed.count);
        model->forward(feeds, total, ids, positions, blocks, media, states, logits);
        for (Feed& feed : feeds) feed.sequence->length += feed.count;
        return 0;
    }));
}

int32_t glmkit_head(glmkit_model* model, int64_t n, const float* states, float* logits) {
    return int32_t(guarded([&]() -> int64_t {
        std::lock_guard guard(model->lock);
        model->check_complete();
        if (n > 0) model->head(states, n, logits);
        return 0;
    }));
}

int32_t glmkit_likeliest(glmkit_model* model, int64_t n, const float* logits, const uint8_t* const* barred, const int64_t* counts,
                         int64_t* tokens, double* log_probabilities) {
    return int32_t(guarded([&]() -> int64_t {
        std::lock_guard guard(model->lock);
        for (int64_t i = 0; i < n; ++i)
            if (counts[i] < 1 || counts[i] > model->sizes.vocabulary)
                throw std::invalid_argument(number(counts[i]) + " tokens of which some are barred, in a vocabulary of " +
                                            number(model->sizes.vocabulary));
        if (n > 0) model->likeliest(logits, n, barred, counts, tokens, log_probabilities);
        return 0;
    }));
}

}  // extern "C"
