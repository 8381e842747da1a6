#pragma once

#include "export.h"

#define GGML_BACKEND_DL_SCORE_IMPL(score)            \
    extern "C" EXPORTED int ggml_backend_score() { \
        return score();                              \
    }
