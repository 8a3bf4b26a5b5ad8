// ISOLINE_MULTIVERSION: compile a plain loop for several x86-64 levels and pick at load time.
// Off under sanitizers and for clang (fuzzers), where the baseline is used.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define ISOLINE_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ISOLINE_MULTIVERSION
#endif
