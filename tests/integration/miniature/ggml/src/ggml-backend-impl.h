#pragma once

#define GGML_BACKEND_DL_SCORE_IMPL(score)            \
    extern "C" __attribute__((visibility("default"))) int ggml_backend_score() { \
        return score();                              \
    }
