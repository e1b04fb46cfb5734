// The C interface of glmkit's native decoder; `src/glmkit/native/library.py` is its only caller.
//
// Functions that can fail return a negative number; `glmkit_error` then says what was wrong. Weights are borrowed: the
// caller keeps them alive as long as the model. One model runs one forward pass at a time.
#pragma once

#include <cstdint>

#if defined(_WIN32)
#define GLMKIT_API __declspec(dllexport)
#else
#define GLMKIT_API __attribute__((visibility("default")))
#endif

extern "C" {

struct glmkit_sizes {
    int32_t layers, hidden, heads, mlp, vocabulary, positions;  // positions: rows of each position table
    int32_t activation;                                         // 0 erf GELU, 1 tanh GELU, 2 ReLU
    int32_t block_positions;                                    // whether there is a second position table
    int32_t half_cache;                                         // keys and values in float16 instead of float32
    float epsilon;
};

struct glmkit_model;

// Raised whenever a function takes other arguments, so that an older library is never called with them.
constexpr int32_t GLMKIT_INTERFACE = 4;
// Ids from here on are no tokens but rows of the `media` given with them (`special_tokens.FIRST_MEDIA_ID`).
constexpr int32_t GLMKIT_FIRST_MEDIA_ID = 1 << 24;

GLMKIT_API int32_t glmkit_interface();
GLMKIT_API const char* glmkit_error();
GLMKIT_API const char* glmkit_instructions();  // "amx", "avx512bf16", "avx512", "avxvnni", "avx2"; "dotprod", "neon"; "portable"

GLMKIT_API glmkit_model* glmkit_new(const glmkit_sizes*, int32_t threads);
// A model with sequences stays until they are closed, which is all that may be done with it then: what Python collects as garbage
// together it finalizes in any order.
GLMKIT_API void glmkit_delete(glmkit_model*);
// Roles of matrices: 0 word embedding, 1 QKV, 2 attention's dense, 3 MLP up, 4 MLP down. `layer` is 0 for the embedding.
GLMKIT_API int32_t glmkit_set_matrix(glmkit_model*, int32_t role, int32_t layer, int32_t format, const void* data,
                          const void* scales, const uint8_t* zeros, const uint8_t* firsts, const uint32_t* strays);
// Roles of float32 vectors: 0-1 first LayerNorm, 2 QKV bias, 3 dense bias, 4-5 second LayerNorm, 6 up bias, 7 down bias,
// 8-9 final LayerNorm, 10 positions [positions, hidden], 11 block positions. Biases are filled up to a multiple of 16.
GLMKIT_API int32_t glmkit_set_vector(glmkit_model*, int32_t role, int32_t layer, const float* data);

GLMKIT_API int64_t glmkit_open(glmkit_model*);
GLMKIT_API int64_t glmkit_fork(glmkit_model*, int64_t sequence);
GLMKIT_API int32_t glmkit_truncate(glmkit_model*, int64_t sequence, int64_t length);
GLMKIT_API int32_t glmkit_close(glmkit_model*, int64_t sequence);
GLMKIT_API int64_t glmkit_length(glmkit_model*, int64_t sequence);
GLMKIT_API int64_t glmkit_cache_bytes(glmkit_model*);
// Tokens of all feeds one after the other. Of the last num_logits tokens of each feed one gets `logits` [n, vocabulary] or,
// where that is null, `states` [n, hidden] after the final LayerNorm, from which `glmkit_head` makes logits. `media`
// [media_rows, hidden] is what stands in the place of words at ids from GLMKIT_FIRST_MEDIA_ID on; it is read during the call.
GLMKIT_API int32_t glmkit_forward(glmkit_model*, int32_t feeds, const int64_t* sequences, const int32_t* counts,
                       const int32_t* prefixes, const int32_t* num_logits, const int32_t* ids, const int32_t* positions,
                       const int32_t* blocks, const float* media, int64_t media_rows, float* states, float* logits);
GLMKIT_API int32_t glmkit_head(glmkit_model*, int64_t n, const float* states, float* logits);
// Of each of n rows of `logits` [n, vocabulary] the likeliest token, the first of equals, and its log-probability among those that
// `barred` (an array for each row, of `counts` bytes; what lies beyond is barred too) lets stand there. It is not finite where
// there is none, or where a logit is no number.
GLMKIT_API int32_t glmkit_likeliest(glmkit_model*, int64_t n, const float* logits, const uint8_t* const* barred,
                          const int64_t* counts, int64_t* tokens, double* log_probabilities);
}
