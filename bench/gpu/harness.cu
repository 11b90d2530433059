/*
 * Checks and times the GPU kernels on a device, without the library around them.
 *
 *   harness CUBIN check          numbers against a float64 product, layouts against layout.h
 *   harness CUBIN small          the small ones of them, for compute-sanitizer
 *   harness CUBIN tiny           two of these, K in two at most, for what takes minutes
 *   harness CUBIN plain          `small` with the kernel that needs no matrix instruction
 *   harness CUBIN time [K N G]   the chosen plans against the read floor and cuBLAS
 *   harness CUBIN sweep K N G M [8 or order]     candidates of one call, of 8 bits or act-order
 *   harness CUBIN awkward        other types, and awkward shapes beside aligned ones
 *   harness CUBIN repack         preparation against a copy of the same bytes
 *   harness CUBIN once K N G M   each unsplit candidate once, for a profiler
 *
 * Variables that sweep obeys: ONLY, what an entry has in its name; WITHIN, how many times the least
 * a candidate may cost.
 *
 * Times are medians of graph replays in which the weights rotate through more memory than L2 holds.
 */
#include <cublas_v2.h>
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "../../plugins/gpu/plan.h"
#include "../../plugins/gpu/plan_wide.h"

#define CHECK(call)                                                                                \
    do {                                                                                           \
        cudaError_t error_ = (call);                                                               \
        if (error_ != cudaSuccess) {                                                               \
            std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error_)); \
            std::exit(2);                                                                          \
        }                                                                                          \
    } while (0)

static cudaLibrary_t library;
static gpu_facts facts;
static std::map<std::string, cudaKernel_t> kernels;

static cudaKernel_t kernel(const char *name) {
    auto found = kernels.find(name);
    if (found != kernels.end())
        return found->second;
    cudaKernel_t k;
    CHECK(cudaLibraryGetKernel(&k, library, name));
    CHECK(cudaFuncSetAttribute((const void *)k, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               (int)facts.shared_bytes));
    return kernels[name] = k;
}

static bool early = true;

template <class P> static void launch(const gpu_launch &l, P params, cudaStream_t stream) {
    void *arguments[] = {&params};
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(l.grid);
    config.blockDim = dim3(l.block);
    config.dynamicSmemBytes = l.shared_bytes;
    config.stream = stream;
    config.attrs = attributes;
    if (l.cluster > 1) {
        attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
        attributes[config.numAttrs++].val.clusterDim = {l.cluster, 1, 1};
    }
    if (l.early && early) {
        attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    CHECK(cudaLaunchKernelExC(&config, (const void *)kernel(l.entry), arguments));
}

/** Rows of x for the copy engine. */
static gpu_tensor_map map_rows(const gpu_rows &rows) {
    typedef CUresult (*Encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                               const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                               const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                               CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    static Encode encode = [] {
        void *found = nullptr;
        cudaDriverEntryPointQueryResult result;
        CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                               cudaEnableDefault, &result));
        return (Encode)found;
    }();
    gpu_tensor_map map;
    cuuint64_t sizes[2] = {(cuuint64_t)rows.columns, (cuuint64_t)rows.rows};
    cuuint64_t strides[1] = {
        (cuuint64_t)(rows.rows > 1 ? rows.stride * 2 : (rows.columns + 7) / 8 * 16)};
    cuuint32_t box[2] = {(cuuint32_t)rows.box_columns, (cuuint32_t)rows.box_rows};
    cuuint32_t steps[2] = {1, 1};
    CUtensorMapSwizzle swizzle =
        rows.box_columns == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE;
    CUresult error = encode((CUtensorMap *)&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, (void *)rows.x,
                            sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                            CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (error != CUDA_SUCCESS) {
        std::printf("cuTensorMapEncodeTiled: %d\n", (int)error);
        std::exit(2);
    }
    return map;
}

struct Buffer {
    void *data = nullptr;
    size_t bytes = 0;
    explicit Buffer(size_t n) : bytes(n) { CHECK(cudaMalloc(&data, n ? n : 16)); }
    ~Buffer() { cudaFree(data); }
    Buffer(const Buffer &) = delete;
    template <class T> T *as() const { return (T *)data; }
};

/* ---- data ------------------------------------------------------------------------------------ */

static __host__ __device__ uint32_t hash(uint64_t i, uint32_t seed) {
    uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull + (uint64_t)seed * 0xd1b54a32d192ed03ull;
    x ^= x >> 31;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 29;
    x *= 0x94d049bb133111ebull;
    return (uint32_t)(x >> 32);
}
static __host__ __device__ float uniform(uint64_t i, uint32_t seed) {
    return (float)(hash(i, seed) >> 8) / 16777216.0f;
}

__global__ void fill_words(uint32_t *to, size_t n, uint32_t seed) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        to[i] = hash(i, seed);
}
__global__ void fill_bytes(uint8_t *to, size_t n, uint32_t seed, uint32_t mask) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        to[i] = (uint8_t)(hash(i, seed) & mask);
}
__global__ void fill_floats(uint16_t *to, size_t n, uint32_t seed, uint32_t type, float low,
                            float high) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        float v = low + (high - low) * uniform(i, seed);
        to[i] = type == KRY_TYPE_F16 ? __half_as_ushort(__float2half_rn(v))
                                     : __bfloat16_as_ushort(__float2bfloat16_rn(v));
    }
}
__global__ void fill_rows(uint16_t *to, int64_t m, int64_t k, int64_t stride, uint32_t seed,
                          uint32_t type, uint16_t beyond) {
    int64_t n = m * stride;
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        float v = 2 * uniform(i, seed) - 1;
        uint16_t bits = type == KRY_TYPE_F16 ? __half_as_ushort(__float2half_rn(v))
                                             : __bfloat16_as_ushort(__float2bfloat16_rn(v));
        to[i] = i % stride < k ? bits : beyond;
    }
}

/** A layer's canonical weights on the device. */
struct Layer {
    kry_linear linear;
    gpu_layout layout;
    int64_t words;
    Buffer qweight, scales, zeros, g_idx, prepared, scratch;
    std::vector<int32_t> groups; /* of each column */
    Layer(const kry_linear &l, uint32_t seed, bool prepare_now = true)
        : linear(l), layout(gpu_layout_of(&l)),
          words(gpu_ceil_div(l.in_features, 32 / kry_weight_bits(l.weight_type))),
          qweight((size_t)l.out_features * words * 4),
          scales((size_t)l.out_features * layout.groups * 2),
          zeros((size_t)l.out_features * layout.groups), g_idx((size_t)l.in_features * 4),
          prepared(layout.bytes), scratch(gpu_prepare_scratch_bytes(&layout)) {
        fill_words<<<1024, 256>>>(qweight.as<uint32_t>(), qweight.bytes / 4, seed);
        float top = layout.bits == 4 ? 0.02f : 0.002f;
        fill_floats<<<256, 256>>>(scales.as<uint16_t>(), scales.bytes / 2, seed + 1, l.scale_type,
                                  top / 2, top);
        fill_bytes<<<256, 256>>>(zeros.as<uint8_t>(), zeros.bytes, seed + 2,
                                 layout.bits == 4 ? 15 : 255);
        groups.resize(l.in_features);
        for (int64_t k = 0; k < l.in_features; k++)
            groups[k] = l.act_order ? (int32_t)(hash(k, seed + 3) % layout.groups)
                                    : (int32_t)kry_linear_group_of(&l, k);
        if (l.act_order && l.full_in_features == l.in_features && l.group_size > 0) {
            for (int64_t k = 0; k < l.in_features; k++) /* as a checkpoint brings: even groups */
                groups[k] = (int32_t)(k / l.group_size);
            for (int64_t k = l.in_features - 1; k > 0; k--)
                std::swap(groups[k], groups[hash(k, seed + 4) % (k + 1)]);
        }
        CHECK(cudaMemcpy(g_idx.data, groups.data(), g_idx.bytes, cudaMemcpyHostToDevice));
        CHECK(cudaMemset(prepared.data, 0xA5, prepared.bytes));
        if (prepare_now)
            prepare(0);
        CHECK(cudaDeviceSynchronize());
    }
    void prepare(cudaStream_t stream) {
        unsigned char *to = prepared.as<unsigned char>();
        if (layout.act_order)
            launch(gpu_launch_sort(&layout),
                   gpu_sort_params{layout, g_idx.as<int32_t>(), (uint32_t *)(to + layout.header_at),
                                   (int32_t *)(to + layout.source_at),
                                   (uint32_t *)(to + layout.block_group_at),
                                   (uint32_t *)(scratch.as<unsigned char>() + layout.scales_at)},
                   stream);
        else if (layout.gathered)
            launch(gpu_launch_fill_source(&layout),
                   gpu_fill_source_params{layout, (uint32_t *)(to + layout.header_at),
                                          (int32_t *)(to + layout.source_at)},
                   stream);
        gpu_repack_params p = {};
        p.layout = layout;
        p.qweight = qweight.as<uint32_t>();
        p.scales = scales.data;
        p.zero_points = layout.has_zeros ? zeros.as<uint8_t>() : nullptr;
        p.source = layout.act_order ? (const int32_t *)(to + layout.source_at) : nullptr;
        p.prepared = to;
        p.qweight_stride = words;
        p.scale_stride = p.zero_stride = layout.groups;
        p.n_end = layout.out_features;
        p.scale_bytes = 2;
        launch(gpu_launch_repack_codes(&layout, p.n_end), p, stream);
        launch(gpu_launch_repack_scales(&layout, p.n_end), p, stream);
    }
};

static kry_linear linear_of(int64_t k, int64_t n, int64_t group, uint32_t weights, uint32_t type) {
    kry_linear l = {};
    l.struct_size = sizeof l;
    l.in_features = l.full_in_features = k;
    l.out_features = l.full_out_features = n;
    l.group_size = group;
    l.weight_type = weights;
    l.scale_type = l.x_type = l.y_type = type;
    return l;
}

/** Workspace that every call of a layer fits into. */
struct Workspace {
    Buffer scratch, zeroed;
    Workspace(size_t s, size_t z) : scratch(s), zeroed(z) {
        CHECK(cudaMemset(scratch.data, 0xFF, scratch.bytes));
        CHECK(cudaMemset(zeroed.data, 0, zeroed.bytes));
    }
};

static void run_plan(const Layer &layer, const gpu_plan &plan, const gpu_run &run,
                     cudaStream_t stream) {
    if (plan.arranged)
        launch(plan.arrange, gpu_plan_arrange(&plan, &layer.layout, &run), stream);
    gpu_apply_params params = gpu_plan_params(&plan, &layer.linear, &layer.layout, &run);
    if (plan.box_rows == 0) {
        launch(plan.main, params, stream);
        return;
    }
    gpu_late_params late = {{{}, params}, {}};
    gpu_tensor_map *maps[GPU_MAPS] = {&late.wide.x, &late.more[0], &late.more[1]};
    gpu_rows rows[GPU_MAPS];
    int32_t count = gpu_plan_maps(&plan, &params, rows);
    for (int32_t i = 0; i < count; i++)
        *maps[i] = map_rows(rows[i]);
    launch(plan.main, late, stream);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static __device__ double widen(const uint16_t *from, int64_t i, uint32_t type) {
    return type == KRY_TYPE_F16 ? (double)__half2float(__ushort_as_half(from[i]))
                                : (double)__uint_as_float((uint32_t)from[i] << 16);
}

/** The dense weights in double: [n][k]. */
__global__ void dense_weights(double *to, const uint32_t *qweight, const uint16_t *scales,
                              const uint8_t *zeros, const int32_t *groups, int64_t n, int64_t k,
                              int64_t words, int64_t group_count, int bits, bool has_zeros,
                              uint32_t type) {
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n * k;
         i += (int64_t)gridDim.x * blockDim.x) {
        int64_t row = i / k, column = i % k, per = 32 / bits;
        uint32_t q =
            qweight[row * words + column / per] >> (column % per * bits) & ((1u << bits) - 1);
        int64_t g = row * group_count + groups[column];
        int z = has_zeros ? zeros[g] : 1 << (bits - 1);
        to[i] = ((int)q - z) * widen(scales, g, type);
    }
}

__global__ void reference(double *y, const double *w, const uint16_t *x, int64_t m, int64_t n,
                          int64_t k, int64_t stride, uint32_t type) {
    int64_t column = blockIdx.x, row = blockIdx.y;
    __shared__ double sums[128];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < k; i += 128)
        sum += w[column * k + i] * widen(x, row * stride + i, type);
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = 64; half; half /= 2) {
        if (threadIdx.x < half)
            sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        y[row * n + column] = sums[0];
}

static double host_widen(const void *from, int64_t i, uint32_t type) {
    if (type == KRY_TYPE_F32)
        return ((const float *)from)[i];
    uint16_t bits = ((const uint16_t *)from)[i];
    if (type == KRY_TYPE_F16)
        return (double)__half2float(__ushort_as_half(bits));
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
}

static int failures, checks;
static void expect(bool good, const char *what, const std::string &name, double value) {
    checks++;
    if (!good && failures++ < 40)
        std::printf("FAIL %s: %s (%g)\n", name.c_str(), what, value);
}

struct Case {
    kry_linear linear;
    bool bias;
    int64_t x_pad, y_pad; /* columns of NaN behind rows of x; of poison behind rows of y */
    int64_t x_skew;       /* elements by which x starts late */
};

/** Device preparation against layout.h, byte for byte. */
static void check_layout(const Layer &layer, const std::string &name) {
    const gpu_layout &l = layer.layout;
    std::vector<unsigned char> prepared(l.bytes);
    std::vector<uint32_t> q(layer.qweight.bytes / 4);
    std::vector<uint16_t> scales(layer.scales.bytes / 2);
    std::vector<uint8_t> zeros(layer.zeros.bytes);
    CHECK(cudaMemcpy(prepared.data(), layer.prepared.data, l.bytes, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(q.data(), layer.qweight.data, layer.qweight.bytes, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(scales.data(), layer.scales.data, layer.scales.bytes, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(zeros.data(), layer.zeros.data, layer.zeros.bytes, cudaMemcpyDeviceToHost));
    const int32_t *source = (const int32_t *)(prepared.data() + l.source_at);
    const uint32_t *block_group = (const uint32_t *)(prepared.data() + l.block_group_at);
    int64_t wrong = 0, seen = 0;
    for (int64_t place = 0; place < l.k_tiles * GPU_TILE_K; place++) {
        int64_t k = l.act_order ? source[place] : gpu_column_of_place(&l, place);
        if (l.gathered && source[place] != k)
            wrong++;
        if (k >= 0) {
            seen++;
            int64_t group =
                l.act_order ? block_group[place / 16] : gpu_group_of_block(&l, place / 16);
            wrong += group != layer.groups[k];
            if (!l.act_order)
                wrong += gpu_place_of_column(&l, k) != place;
        }
        for (int64_t n = 0; n < l.n_panels * GPU_PANEL_N; n++) {
            gpu_code_place at = gpu_place_of_code(&l, n, place);
            uint32_t mask = l.bits == 4 ? 15 : 255, want = 0;
            if (k >= 0 && n < l.out_features)
                want =
                    q[n * layer.words + k / (32 / l.bits)] >> (k % (32 / l.bits) * l.bits) & mask;
            wrong += (prepared[l.codes_at + at.byte] >> at.shift & mask) != want;
        }
    }
    for (int64_t n = 0; n < l.n_panels * GPU_PANEL_N; n++)
        for (int64_t g = 0; g < l.groups; g++) {
            uint64_t at = gpu_scale_place(&l, n, g);
            bool here = n < l.out_features;
            wrong += ((const uint16_t *)(prepared.data() + l.scales_at))[at] !=
                     (here ? scales[n * l.groups + g] : 0);
            if (l.has_zeros)
                wrong += prepared[l.zeros_at + at] != (here ? zeros[n * l.groups + g] : 0);
        }
    expect(wrong == 0 && seen == l.in_features, "prepared bytes differ", name, (double)wrong);
}

/** One call with one plan; returns the relative error. */
static void check_call(const Layer &layer, const Case &c, int64_t m, const gpu_plan *forced,
                       const double *dense, bool probes, const std::string &name) {
    const kry_linear &l = c.linear;
    int64_t n = l.out_features, k = l.in_features, x_stride = k + c.x_pad, y_stride = n + c.y_pad;
    size_t y_bytes = kry_type_bytes(l.y_type);
    Buffer x((size_t)(m * x_stride + c.x_skew) * 2), y((size_t)(m * y_stride + 8) * y_bytes);
    Buffer want((size_t)m * n * 8), bias((size_t)n * y_bytes);
    uint16_t *x_data = x.as<uint16_t>() + c.x_skew;
    fill_rows<<<512, 256>>>(x_data, m, k, x_stride, 77 + (uint32_t)m, l.x_type, 0x7fff);
    std::vector<float> bias_values(n);
    std::vector<uint16_t> bias_bits(n);
    for (int64_t i = 0; i < n; i++) {
        float v = probes ? 0 : 2 * uniform(i, 9) - 1;
        bias_bits[i] = l.y_type == KRY_TYPE_F16 ? __half_as_ushort(__float2half_rn(v))
                                                : __bfloat16_as_ushort(__float2bfloat16_rn(v));
        bias_values[i] =
            l.y_type == KRY_TYPE_F32 ? v : (float)host_widen(bias_bits.data(), i, l.y_type);
    }
    CHECK(cudaMemcpy(bias.data,
                     l.y_type == KRY_TYPE_F32 ? (void *)bias_values.data() : bias_bits.data(),
                     bias.bytes, cudaMemcpyHostToDevice));
    if (probes) { /* row r is 1 at one column */
        std::vector<uint16_t> rows((size_t)m * x_stride, 0x7fff);
        for (int64_t r = 0; r < m; r++) {
            int64_t at = r == 0       ? 0
                         : r == 1     ? k - 1
                         : r % 4 == 2 ? std::min(k - 1, r * 16)
                         : r % 4 == 3 ? std::min(k - 1, r * 16 - 1)
                                      : hash(r, 5) % k;
            for (int64_t j = 0; j < k; j++)
                rows[r * x_stride + j] = j != at ? 0 : l.x_type == KRY_TYPE_F16 ? 0x3c00 : 0x3f80;
        }
        CHECK(cudaMemcpy(x_data, rows.data(), rows.size() * 2, cudaMemcpyHostToDevice));
    }
    reference<<<dim3((unsigned)n, (unsigned)m), 128>>>(want.as<double>(), dense, x_data, m, n, k,
                                                       x_stride, l.x_type);
    CHECK(cudaMemset(y.data, 0xFF, y.bytes));
    gpu_call call = gpu_call_of(x_data, x_stride, m);
    gpu_plan plan;
    if (forced)
        plan = *forced;
    else
        gpu_plan_of(&facts, &l, &layer.layout, &call, &plan);
    Workspace space(plan.scratch_bytes, plan.zeroed_bytes);
    std::vector<unsigned char> first(y.bytes), got(y.bytes), zeroed(space.zeroed.bytes);
    for (int turn = 0; turn < 2; turn++) {
        for (int64_t row = 0; row < m; row += plan.rows) {
            gpu_run run = {x_data + row * x_stride,
                           y.as<char>() + row * y_stride * y_bytes,
                           c.bias ? bias.data : nullptr,
                           std::min(plan.rows, m - row),
                           x_stride,
                           y_stride,
                           layer.prepared.data,
                           space.scratch.data,
                           space.zeroed.data};
            run_plan(layer, plan, run, 0);
        }
        CHECK(cudaDeviceSynchronize());
        CHECK(cudaMemcpy((turn ? got : first).data(), y.data, y.bytes, cudaMemcpyDeviceToHost));
    }
    expect(got == first, "two runs differ", name, 0);
    CHECK(cudaMemcpy(zeroed.data(), space.zeroed.data, zeroed.size(), cudaMemcpyDeviceToHost));
    for (unsigned char b : zeroed)
        if (b) {
            expect(false, "zeroed part is not zero", name, b);
            break;
        }
    std::vector<double> expected((size_t)m * n);
    CHECK(cudaMemcpy(expected.data(), want.data, want.bytes, cudaMemcpyDeviceToHost));
    double difference = 0, norm = 0;
    int64_t bad = 0, spilled = 0;
    for (int64_t r = 0; r < m; r++) {
        for (int64_t j = 0; j < n; j++) {
            double e = expected[r * n + j] + (c.bias ? bias_values[j] : 0);
            double v = host_widen(got.data(), r * y_stride + j, l.y_type);
            difference += (v - e) * (v - e);
            norm += e * e;
            double ulp =
                l.x_type == KRY_TYPE_F16 && l.y_type != KRY_TYPE_BF16 ? 1.0 / 1024 : 1.0 / 128;
            if (probes && !(std::fabs(v - e) <= ulp * std::fabs(e) + 1e-7))
                bad++;
        }
        for (int64_t j = n; j < y_stride; j++)
            for (size_t b = 0; b < y_bytes; b++)
                spilled += got[(r * y_stride + j) * y_bytes + b] != 0xFF;
    }
    double error = norm > 0 ? std::sqrt(difference / norm) : difference;
    double most = l.y_type == KRY_TYPE_BF16 ? 4e-3 : l.y_type == KRY_TYPE_F16 ? 1e-3 : 1e-5;
    expect(error < most, "error norm", name + " " + plan.main.entry, error);
    expect(bad == 0, "one-hot probes off", name + " " + plan.main.entry, (double)bad);
    expect(spilled == 0, "wrote beside y", name + " " + plan.main.entry, (double)spilled);
}

/** splits: candidates of as many splits at most are checked, too. */
static void check_case(const Case &c, const std::vector<int64_t> &rows, int splits) {
    const kry_linear &l = c.linear;
    char text[200];
    std::snprintf(text, sizeof text,
                  "K=%ld N=%ld g=%ld off=%ld w=%u x=%u y=%u act=%u pad=%ld,%ld,%ld",
                  (long)l.in_features, (long)l.out_features, (long)l.group_size, (long)l.k_offset,
                  l.weight_type, l.x_type, l.y_type, l.act_order, (long)c.x_pad, (long)c.y_pad,
                  (long)c.x_skew);
    std::string name = text;
    Layer layer(l, 1000 + (uint32_t)l.in_features);
    if (l.in_features * l.out_features < 4000000)
        check_layout(layer, name);
    Buffer dense((size_t)l.in_features * l.out_features * 8), groups(layer.groups.size() * 4);
    CHECK(cudaMemcpy(groups.data, layer.groups.data(), groups.bytes, cudaMemcpyHostToDevice));
    dense_weights<<<1024, 256>>>(
        dense.as<double>(), layer.qweight.as<uint32_t>(), layer.scales.as<uint16_t>(),
        layer.zeros.as<uint8_t>(), groups.as<int32_t>(), l.out_features, l.in_features, layer.words,
        layer.layout.groups, layer.layout.bits, layer.layout.has_zeros, l.scale_type);
    for (int64_t m : rows) {
        std::string with_m = name + " m=" + std::to_string(m);
        check_call(layer, c, m, nullptr, dense.as<double>(), false, with_m);
        if (m <= 65 || m == 129)
            check_call(layer, c, m, nullptr, dense.as<double>(), true, with_m + " probes");
        if (splits == 0)
            continue;
        gpu_call call = gpu_call_of((void *)(c.x_skew * 2), l.in_features + c.x_pad, m);
        double cost;
        gpu_plan plan;
        for (int i = 0; i < gpu_plan_candidates(&facts, &l); i++)
            if (gpu_plan_candidate(&facts, &l, &layer.layout, &call, i, &plan, &cost) &&
                plan.splits <= splits)
                check_call(layer, c, m, &plan, dense.as<double>(), false,
                           with_m + " splits=" + std::to_string(plan.splits));
    }
}

static kry_linear shard(kry_linear l, int64_t full, int64_t offset) {
    l.full_in_features = full;
    l.k_offset = offset;
    return l;
}
static kry_linear ordered(kry_linear l) {
    l.act_order = 1;
    return l;
}
static kry_linear yielding(kry_linear l, uint32_t y_type) {
    l.y_type = y_type;
    return l;
}

enum { ANY_SPLITS = 1 << 20 };

static void check_small(bool tiny) {
    const uint32_t f16 = KRY_TYPE_F16, bf16 = KRY_TYPE_BF16;
    std::vector<Case> cases = {
        {linear_of(192, 40, 32, KRY_WEIGHT_U4B8, f16), true, 8, 3, 0},
        {linear_of(520, 132, 128, KRY_WEIGHT_U8, bf16), true, 3, 0, 1},
        {shard(linear_of(352, 72, 64, KRY_WEIGHT_U4, bf16), 704, 352), false, 0, 0, 0},
        {ordered(linear_of(256, 48, 64, KRY_WEIGHT_U4B8, f16)), false, 0, 1, 0},
        {linear_of(1000, 33, 24, KRY_WEIGHT_U8B128, f16), false, 0, 0, 0},
        {linear_of(900, 136, 128, KRY_WEIGHT_U4B8, bf16), true, 0, 0, 4},
    };
    std::vector<int64_t> few = {1, 33}, more = {1, 9, 33, 130};
    if (tiny)
        cases = {cases[0], cases[3]};
    for (const Case &c : cases)
        check_case(c, tiny ? few : more, tiny ? 2 : ANY_SPLITS);
}

static void check_all() {
    const uint32_t f16 = KRY_TYPE_F16, bf16 = KRY_TYPE_BF16;
    std::vector<int64_t> all = {1,  2,  3,  7,  8,  9,   15,  16,  17,
                                31, 33, 63, 64, 65, 127, 128, 129, 1000};
    std::vector<Case> cases;
    for (uint32_t weights = 1; weights <= 4; weights++)
        for (uint32_t type : {f16, bf16}) {
            cases.push_back({linear_of(2112, 2816, 32, weights, type), false, 0, 0, 0});
            cases.push_back({linear_of(1100, 300, 16, weights, type), true, 4, 1, 0});
            cases.push_back(
                {shard(linear_of(352, 196, 64, weights, type), 704, 360), true, 0, 0, 0});
            cases.push_back({ordered(linear_of(1024, 160, 128, weights, type)), false, 1, 2, 3});
        }
    cases.push_back({linear_of(4096, 4096, 128, KRY_WEIGHT_U4B8, f16), false, 0, 0, 0});
    cases.push_back({linear_of(3420, 1280, 128, KRY_WEIGHT_U4B8, bf16), false, 0, 0, 0});
    cases.push_back({linear_of(4096, 32, 128, KRY_WEIGHT_U4B8, bf16), true, 0, 0, 0});
    cases.push_back({linear_of(4304, 1152, 32, KRY_WEIGHT_U4, bf16), false, 8, 0, 0});
    cases.push_back(
        {shard(linear_of(192, 2048, 128, KRY_WEIGHT_U4, f16), 768, 576), false, 0, 0, 0});
    cases.push_back(
        {shard(linear_of(1003, 77, 48, KRY_WEIGHT_U4, f16), 4000, 1001), true, 5, 0, 1});
    cases.push_back({linear_of(1280, 3420, -1, KRY_WEIGHT_U8B128, bf16), false, 0, 0, 0});
    cases.push_back({linear_of(700, 99, 40, KRY_WEIGHT_U8, f16), true, 0, 5, 0});
    cases.push_back(
        {shard(linear_of(700, 99, 100, KRY_WEIGHT_U4B8, bf16), 1400, 650), true, 0, 0, 0});
    cases.push_back({shard(ordered(linear_of(1504, 256, 128, KRY_WEIGHT_U4B8, f16)), 3008, 1504),
                     false, 0, 0, 0});
    cases.push_back(
        {yielding(linear_of(512, 512, 128, KRY_WEIGHT_U4B8, f16), KRY_TYPE_F32), true, 0, 1, 0});
    cases.push_back(
        {yielding(linear_of(512, 512, 128, KRY_WEIGHT_U4B8, f16), bf16), true, 0, 0, 0});
    cases.push_back({yielding(linear_of(512, 512, 64, KRY_WEIGHT_U8, bf16), f16), true, 0, 0, 0});
    cases.push_back(
        {yielding(linear_of(640, 256, 32, KRY_WEIGHT_U4, bf16), KRY_TYPE_F32), true, 0, 0, 0});
    cases.push_back({linear_of(3, 1, -1, KRY_WEIGHT_U8, bf16), true, 0, 0, 0});
    cases.push_back({linear_of(1, 1, -1, KRY_WEIGHT_U4B8, f16), true, 0, 0, 0});
    cases.push_back({linear_of(17, 5, -1, KRY_WEIGHT_U8, bf16), false, 0, 0, 0});
    cases.push_back({linear_of(64, 16, 16, KRY_WEIGHT_U4, f16), false, 0, 0, 0});
    for (const Case &c : cases)
        check_case(c, all, 0);
    std::vector<int64_t> some = {1, 8, 16, 40, 128, 500};
    check_case({linear_of(2112, 2816, 32, KRY_WEIGHT_U4B8, f16), true, 0, 0, 0}, some, ANY_SPLITS);
    check_case({linear_of(1096, 520, 128, KRY_WEIGHT_U8, bf16), true, 0, 0, 0}, some, ANY_SPLITS);
}

/* ---- times ----------------------------------------------------------------------------------- */

/** Median time of one of `count` calls, µs: calls are captured in a graph that is replayed. */
static double time_calls(int count, const std::function<void(int, cudaStream_t)> &call,
                         int replays = 15) {
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    call(0, stream);
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < count; i++)
        call(i, stream);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&executable, graph, 0));
    cudaEvent_t begin, end;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    std::vector<float> times;
    float warm = 0; /* clocks rise within milliseconds */
    while ((int)times.size() < replays) {
        CHECK(cudaEventRecord(begin, stream));
        CHECK(cudaGraphLaunch(executable, stream));
        CHECK(cudaEventRecord(end, stream));
        CHECK(cudaEventSynchronize(end));
        float ms;
        CHECK(cudaEventElapsedTime(&ms, begin, end));
        if (warm >= 10)
            times.push_back(ms * 1000 / (float)count);
        warm += ms;
    }
    std::sort(times.begin(), times.end());
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    return times[times.size() / 2];
}

__global__ void __launch_bounds__(512) read_bytes(const uint4 *from, size_t n, uint32_t *to) {
    uint32_t sum = 0;
    size_t step = (size_t)gridDim.x * blockDim.x, i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    for (; i + 3 * step < n; i += 4 * step) {
        uint4 a = __ldcs(from + i), b = __ldcs(from + i + step), c = __ldcs(from + i + 2 * step),
              d = __ldcs(from + i + 3 * step);
        sum += a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w ^ c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^
               d.z ^ d.w;
    }
    for (; i < n; i += step) {
        uint4 a = __ldcs(from + i);
        sum += a.x ^ a.y ^ a.z ^ a.w;
    }
    if (sum == 0x12345678)
        *to = sum;
}

typedef cublasStatus_t (*Create)(cublasHandle_t *);
typedef cublasStatus_t (*SetStream)(cublasHandle_t, cudaStream_t);
typedef cublasStatus_t (*SetWorkspace)(cublasHandle_t, void *, size_t);
typedef cublasStatus_t (*Gemm)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                               const void *, const void *, cudaDataType, int, const void *,
                               cudaDataType, int, const void *, void *, cudaDataType, int,
                               cublasComputeType_t, cublasGemmAlgo_t);
struct Cublas {
    cublasHandle_t handle = nullptr;
    SetStream set_stream = nullptr;
    SetWorkspace set_workspace = nullptr;
    Gemm gemm = nullptr;
    Cublas() {
        void *so = dlopen("libcublas.so.13", RTLD_NOW);
        if (!so)
            so = dlopen("libcublas.so.12", RTLD_NOW);
        if (!so) {
            std::printf("no cuBLAS: %s\n", dlerror());
            return;
        }
        Create create = (Create)dlsym(so, "cublasCreate_v2");
        set_stream = (SetStream)dlsym(so, "cublasSetStream_v2");
        set_workspace = (SetWorkspace)dlsym(so, "cublasSetWorkspace_v2");
        gemm = (Gemm)dlsym(so, "cublasGemmEx");
        if (create(&handle) != CUBLAS_STATUS_SUCCESS)
            handle = nullptr;
    }
};

static double time_cublas(Cublas &blas, int64_t k, int64_t n, int64_t m) {
    if (!blas.handle)
        return 0;
    size_t bytes = (size_t)k * n * 2;
    int copies = (int)std::min<size_t>(16, std::max<size_t>(2, (300u << 20) / bytes + 1));
    Buffer w(bytes * copies), x((size_t)m * k * 2), y((size_t)m * n * 2), space(64 << 20);
    fill_floats<<<1024, 256>>>(w.as<uint16_t>(), w.bytes / 2, 1, KRY_TYPE_F16, -0.1f, 0.1f);
    fill_floats<<<1024, 256>>>(x.as<uint16_t>(), x.bytes / 2, 2, KRY_TYPE_F16, -1, 1);
    float one = 1, zero = 0;
    return time_calls(copies, [&](int i, cudaStream_t s) {
        blas.set_stream(blas.handle, s);
        blas.set_workspace(blas.handle, space.data, space.bytes);
        blas.gemm(blas.handle, CUBLAS_OP_T, CUBLAS_OP_N, (int)n, (int)m, (int)k, &one,
                  w.as<char>() + bytes * i, CUDA_R_16F, (int)k, x.data, CUDA_R_16F, (int)k, &zero,
                  y.data, CUDA_R_16F, (int)n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    });
}

/** A layer's prepared weights several times over, so that rotation leaves L2 behind. */
struct Rotated {
    Layer layer;
    int copies;
    Buffer all;
    Rotated(const kry_linear &l)
        : layer(l, 1), copies((int)std::min<size_t>(
                           64, std::max<size_t>(2, (300u << 20) / layer.layout.bytes + 1))),
          all(layer.layout.bytes * copies) {
        for (int i = 0; i < copies; i++)
            CHECK(cudaMemcpy(all.as<char>() + layer.layout.bytes * i, layer.prepared.data,
                             layer.layout.bytes, cudaMemcpyDeviceToDevice));
    }
    const void *at(int i) const { return all.as<char>() + layer.layout.bytes * (i % copies); }
};

static double time_plan(const Rotated &r, const gpu_plan &plan, int64_t m) {
    const kry_linear &l = r.layer.linear;
    Buffer x((size_t)m * l.in_features * 2), y((size_t)m * l.out_features * 4);
    fill_floats<<<1024, 256>>>(x.as<uint16_t>(), x.bytes / 2, 2, l.x_type, -1, 1);
    Workspace space(plan.scratch_bytes, plan.zeroed_bytes);
    int count = m >= 512 ? std::min(r.copies, 8) : r.copies;
    return time_calls(count, [&](int i, cudaStream_t s) {
        for (int64_t row = 0; row < m; row += plan.rows) {
            gpu_run run = {x.as<uint16_t>() + row * l.in_features,
                           y.as<uint16_t>() + row * l.out_features,
                           nullptr,
                           std::min(plan.rows, m - row),
                           l.in_features,
                           l.out_features,
                           r.at(i),
                           space.scratch.data,
                           space.zeroed.data};
            run_plan(r.layer, plan, run, s);
        }
    });
}

static double time_read(const Rotated &r) {
    Buffer to(16);
    size_t n = (r.layer.layout.bytes - r.layer.layout.scales_at) / 16;
    double best = 1e9;
    for (unsigned grid : {132u, 264u, 528u})
        best = std::min(best, time_calls(r.copies, [&](int i, cudaStream_t s) {
                            read_bytes<<<grid, 512, 0, s>>>(
                                (const uint4 *)((const char *)r.at(i) + r.layer.layout.scales_at),
                                n, to.as<uint32_t>());
                        }));
    return best;
}

/** How many clusters of each size run at a time. */
static void count_clusters(uint32_t resident) {
    gpu_launch like = gpu_wide_launch(resident);
    std::printf("CLUSTERS %s:", like.entry);
    for (unsigned size = 1; size <= GPU_CLUSTER_MAX; size++) {
        cudaLaunchAttribute attribute = {};
        cudaLaunchConfig_t config = {};
        int found = 0;
        attribute.id = cudaLaunchAttributeClusterDimension;
        attribute.val.clusterDim = {size, 1, 1};
        config.gridDim = dim3(size * 264);
        config.blockDim = dim3(like.block);
        config.dynamicSmemBytes = like.shared_bytes;
        config.attrs = &attribute;
        config.numAttrs = 1;
        CHECK(cudaOccupancyMaxActiveClusters(&found, (const void *)kernel(like.entry), &config));
        facts.clusters[resident - 1][size - 1] = (uint16_t)found;
        std::printf(" %d", found);
    }
    std::printf("\n");
}

/** Whether the environment lets `sweep` take a candidate, which costs so many times the least. */
static bool is_swept(const gpu_plan &plan, double times) {
    const char *only = std::getenv("ONLY"), *within = std::getenv("WITHIN");
    return (only == nullptr || std::strstr(plan.main.entry, only) != nullptr) &&
           (within == nullptr || times <= std::atof(within));
}

static void time_shape(const kry_linear &l, const std::vector<int64_t> &rows, Cublas &blas,
                       bool every) {
    Rotated r(l);
    double read = time_read(r);
    for (int64_t m : rows) {
        double dense = time_cublas(blas, l.in_features, l.out_features, m);
        gpu_call call = gpu_call_of(nullptr, l.in_features, m);
        gpu_plan plan, best_plan;
        gpu_plan_of(&facts, &l, &r.layer.layout, &call, &plan);
        double mine = time_plan(r, plan, m), best = mine, cost, least = 1;
        best_plan = plan;
        gpu_plan candidate;
        gpu_plan_candidate(&facts, &l, &r.layer.layout, &call, plan.candidate, &candidate, &least);
        for (int i = 0; every && i < gpu_plan_candidates(&facts, &l); i++) {
            if (!gpu_plan_candidate(&facts, &l, &r.layer.layout, &call, i, &candidate, &cost) ||
                !is_swept(candidate, cost / least))
                continue;
            double t = time_plan(r, candidate, m);
            if (every)
                std::printf("    cand %ldx%ld m=%ld %s w%d/%d grid %u: %.2f us, model %.0f\n",
                            (long)l.in_features, (long)l.out_features, (long)m,
                            candidate.main.entry + 4, candidate.waves_n, candidate.splits,
                            candidate.main.grid, t, cost);
            if (t < best) {
                best = t;
                best_plan = candidate;
            }
        }
        std::printf(
            "SHAPE %ldx%ld g%ld w%u x%u m=%-5ld read %7.2f cublas %8.2f mine %8.2f (%.2f read, "
            "%.2f cublas) %s w%d/%d | best %8.2f %s w%d/%d\n",
            (long)l.in_features, (long)l.out_features, (long)l.group_size, l.weight_type, l.x_type,
            (long)m, read, dense, mine, mine / read, dense > 0 ? mine / dense : 0,
            plan.main.entry + 4, plan.waves_n, plan.splits, best, best_plan.main.entry + 4,
            best_plan.waves_n, best_plan.splits);
        std::fflush(stdout);
    }
}

static void time_repack() {
    kry_linear l = linear_of(8192, 28672, 128, KRY_WEIGHT_U4, KRY_TYPE_F16);
    Layer layer(l, 1);
    Buffer to(layer.qweight.bytes);
    double copy = time_calls(4, [&](int, cudaStream_t s) {
        CHECK(cudaMemcpyAsync(to.data, layer.qweight.data, to.bytes, cudaMemcpyDeviceToDevice, s));
    });
    double all = time_calls(4, [&](int, cudaStream_t s) { layer.prepare(s); });
    std::printf("REPACK 8192x28672 u4: copy of the codes %.1f us, preparation %.1f us\n", copy,
                all);
    struct {
        const char *name;
        int64_t n_stride, j_stride;
        uint32_t axis, order;
    } packings[] = {
        {"compressed-tensors", 1024, 1, KRY_AXIS_K, KRY_ORDER_SEQUENTIAL},
        {"GPTQ", 1, 28672, KRY_AXIS_K, KRY_ORDER_SEQUENTIAL},
        {"AWQ", 1, 3584, KRY_AXIS_N, KRY_ORDER_AWQ},
    };
    for (auto &packing : packings) {
        gpu_canonicalise_codes_params p = {};
        p.from = {layer.qweight.as<unsigned char>(),
                  packing.n_stride,
                  packing.j_stride,
                  0,
                  0,
                  4,
                  32,
                  packing.axis,
                  packing.order,
                  0,
                  0};
        p.to = to.as<uint32_t>();
        p.n_end = 28672;
        p.columns = 8192;
        p.words = 1024;
        p.bits = 4;
        double t = time_calls(4, [&](int, cudaStream_t s) {
            launch(gpu_launch_canonicalise_codes(28672, 1024), p, s);
        });
        std::printf("CANONICALISE %s: %.1f us\n", packing.name, t);
    }
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 1;
    std::string what = argv[2];
    early = std::getenv("NO_EARLY") == nullptr;
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, 0));
    facts = {(uint32_t)(properties.major == 9 ? GPU_FAMILY_WGMMA : GPU_FAMILY_MMA),
             (uint32_t)(properties.major * 10 + properties.minor),
             (uint32_t)properties.multiProcessorCount, (uint32_t)properties.sharedMemPerBlockOptin};
    CHECK(cudaLibraryLoadFromFile(&library, argv[1], nullptr, nullptr, 0, nullptr, nullptr, 0));
    if (facts.family == GPU_FAMILY_WGMMA) {
        count_clusters(1);
        count_clusters(2);
    }
    const uint32_t f16 = KRY_TYPE_F16, bf16 = KRY_TYPE_BF16;
    if (what == "plain") {
        facts.family = GPU_FAMILY_PLAIN;
        what = "small";
    }
    if (what == "check" || what == "small" || what == "tiny") {
        what == "check" ? check_all() : check_small(what == "tiny");
        CHECK(cudaDeviceSynchronize());
        std::printf("%s: %d checks, %d failures\n", what.c_str(), checks, failures);
        return failures != 0;
    }
    Cublas blas;
    if (what == "time" || what == "sweep") {
        bool every = what != "time";
        std::vector<int64_t> rows = {1, 8, 16, 32, 64, 128, 256, 1024};
        if (argc > 6)
            rows = {std::atol(argv[6])};
        if (argc > 5) {
            std::string kind = argc > 7 ? argv[7] : "";
            kry_linear l = linear_of(std::atol(argv[3]), std::atol(argv[4]), std::atol(argv[5]),
                                     kind == "8" ? KRY_WEIGHT_U8B128 : KRY_WEIGHT_U4B8, f16);
            time_shape(kind == "order" ? ordered(l) : l, rows, blas, every);
            return 0;
        }
        time_shape(linear_of(2112, 2816, 32, KRY_WEIGHT_U4B8, f16), rows, blas, every);
        time_shape(linear_of(4096, 4096, 128, KRY_WEIGHT_U4B8, f16), rows, blas, every);
        time_shape(linear_of(14336, 4096, 128, KRY_WEIGHT_U4B8, f16), rows, blas, every);
        rows.push_back(4096);
        time_shape(linear_of(8192, 28672, 128, KRY_WEIGHT_U4B8, f16), rows, blas, every);
    }
    if (what == "awkward") {
        std::vector<int64_t> rows = {1, 16, 128, 1024};
        time_shape(linear_of(4096, 4096, 128, KRY_WEIGHT_U4B8, bf16), rows, blas, false);
        time_shape(linear_of(4096, 4096, 128, KRY_WEIGHT_U4, f16), rows, blas, false);
        time_shape(linear_of(4096, 4096, 128, KRY_WEIGHT_U8B128, f16), rows, blas, false);
        time_shape(linear_of(4096, 4096, 128, KRY_WEIGHT_U8B128, bf16), rows, blas, false);
        time_shape(linear_of(3420, 1280, 128, KRY_WEIGHT_U4B8, bf16), rows, blas, false);
        time_shape(linear_of(3456, 1280, 128, KRY_WEIGHT_U4B8, bf16), rows, blas, false);
        time_shape(linear_of(1280, 3420, 128, KRY_WEIGHT_U4B8, bf16), rows, blas, false);
        time_shape(linear_of(1280, 3456, 128, KRY_WEIGHT_U4B8, bf16), rows, blas, false);
        time_shape(shard(linear_of(14784, 8192, 128, KRY_WEIGHT_U4B8, bf16), 29568, 14784), rows,
                   blas, false);
        time_shape(linear_of(14848, 8192, 128, KRY_WEIGHT_U4B8, bf16), rows, blas, false);
        time_shape(ordered(linear_of(11008, 4096, 128, KRY_WEIGHT_U4B8, f16)), rows, blas, false);
        time_shape(linear_of(11008, 4096, 128, KRY_WEIGHT_U4B8, f16), rows, blas, false);
        time_shape(linear_of(4304, 1152, 32, KRY_WEIGHT_U4, bf16), rows, blas, false);
        time_shape(linear_of(4352, 1152, 32, KRY_WEIGHT_U4, bf16), rows, blas, false);
    }
    if (what == "once") { /* K N G M [entry]: each candidate of that entry once, for a profiler */
        kry_linear l = linear_of(std::atol(argv[3]), std::atol(argv[4]), std::atol(argv[5]),
                                 KRY_WEIGHT_U4B8, f16);
        Rotated r(l);
        int64_t m = std::atol(argv[6]);
        Buffer x((size_t)m * l.in_features * 2), y((size_t)m * l.out_features * 2);
        fill_floats<<<1024, 256>>>(x.as<uint16_t>(), x.bytes / 2, 2, f16, -1, 1);
        gpu_call call = {m, 16};
        gpu_plan plan;
        double cost;
        for (int i = 0; i < gpu_plan_candidates(&facts, &l); i++) {
            if (!gpu_plan_candidate(&facts, &l, &r.layer.layout, &call, i, &plan, &cost) ||
                (argc > 7 && !std::strstr(plan.main.entry, argv[7])) || plan.splits > 1)
                continue;
            Workspace space(plan.scratch_bytes, plan.zeroed_bytes);
            gpu_run run = {x.data,           y.data,         nullptr, m,
                           l.in_features,    l.out_features, r.at(i), space.scratch.data,
                           space.zeroed.data};
            run_plan(r.layer, plan, run, 0);
            CHECK(cudaDeviceSynchronize());
        }
    }
    if (what == "repack")
        time_repack();
    return 0;
}
