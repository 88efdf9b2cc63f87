#include "ecg_shock.h"

#include <float.h>

#if ECG_SHOCK_INT8
typedef int8_t weight;
#else
typedef float weight;
#endif

typedef struct {
    int32_t inputs, filters, kernel;
    int32_t before; /* samples of zero padding before the input */
    int32_t pooled; /* samples after the max-pooling */
    int32_t memory; /* size of the input with its padding, in numbers */
    const weight *weights; /* for each group of LANES filters: [sample of the kernel][input][filter of the group] */
    const float *scales;   /* one for each filter; null if the weights are float */
    const float *biases;
} block;

#define ECG_SHOCK_TABLES
#include "ecg_shock_model.h" /* again, for its tables */

/* Convolutions are computed in tiles of TILE samples times LANES filters, which fit into registers. */
#define TILE ECG_SHOCK_TILE
#define LANES ECG_SHOCK_LANES
#if TILE != 4 || LANES != 4
#error "convolve_tile needs 4 samples times 4 filters"
#endif

#define EXP_LIMIT 87.0f /* exp(-87) and exp(87) are normal numbers in single precision */
#define LOG2_E 1.44269504f
#define LN2_HIGH 0.693359375f /* has 9 bits, so that its product with an exponent is exact */
#define LN2_LOW -2.12194440e-4f

#define SELU_SCALE 1.05070099f
#define SELU_ALPHA 1.67326324f

typedef union {
    float value;
    uint32_t bits;
} float_bits;

/* Compares the bits without the sign. Those of finite floats have the order of the numbers; inf and NaN are larger. */
static int is_within(float value, float limit)
{
    float_bits v, max;
    v.value = value;
    max.value = limit;
    return (v.bits & 0x7fffffffu) <= max.bits;
}

static int is_finite(float value)
{
    float_bits v;
    v.value = value;
    return (v.bits & 0x7f800000u) != 0x7f800000u;
}

/* exp(x) with a relative error of 1e-7. x is limited to +-EXP_LIMIT, and NaN counts as the lower limit. */
static float exponential(float x)
{
    float_bits power;
    float r, polynomial;
    int32_t n;

    if (!(x > -EXP_LIMIT)) {
        x = -EXP_LIMIT;
    }
    if (x > EXP_LIMIT) {
        x = EXP_LIMIT;
    }
    n = (int32_t)(x * LOG2_E + (x < 0.0f ? -0.5f : 0.5f));
    r = (x - (float)n * LN2_HIGH) - (float)n * LN2_LOW;
    polynomial = 1.0f / 5040;
    polynomial = polynomial * r + 1.0f / 720;
    polynomial = polynomial * r + 1.0f / 120;
    polynomial = polynomial * r + 1.0f / 24;
    polynomial = polynomial * r + 1.0f / 6;
    polynomial = polynomial * r + 1.0f / 2;
    power.bits = (uint32_t)(n + 127) << 23;
    return (1.0f + (r + r * r * polynomial)) * power.value;
}

static float activation(float x)
{
#if ECG_SHOCK_ACTIVATION == ECG_SHOCK_RELU
    return x > 0.0f ? x : 0.0f;
#elif ECG_SHOCK_ACTIVATION == ECG_SHOCK_ELU
    return x > 0.0f ? x : exponential(x) - 1.0f;
#elif ECG_SHOCK_ACTIVATION == ECG_SHOCK_SELU
    return SELU_SCALE * (x > 0.0f ? x : SELU_ALPHA * (exponential(x) - 1.0f));
#elif ECG_SHOCK_ACTIVATION == ECG_SHOCK_TANH
    return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f);
#else
#error "unknown ECG_SHOCK_ACTIVATION"
#endif
}

/*
 * Compute the dot products of TILE overlapping patches of the input with LANES filters.
 *
 * Each patch has `length` numbers, and begins `stride` numbers after the previous one.
 */
static void convolve_tile(const float *input, int stride, const weight *weights, int length,
                          float sums[TILE][LANES])
{
    /* Separate variables, because compilers would keep an array in memory instead of registers. */
    float s00 = 0.0f, s01 = 0.0f, s02 = 0.0f, s03 = 0.0f;
    float s10 = 0.0f, s11 = 0.0f, s12 = 0.0f, s13 = 0.0f;
    float s20 = 0.0f, s21 = 0.0f, s22 = 0.0f, s23 = 0.0f;
    float s30 = 0.0f, s31 = 0.0f, s32 = 0.0f, s33 = 0.0f;
    int i;

    for (i = 0; i < length; i++) {
        const float w0 = (float)weights[0], w1 = (float)weights[1], w2 = (float)weights[2], w3 = (float)weights[3];
        const float x0 = input[i], x1 = input[i + stride], x2 = input[i + 2 * stride], x3 = input[i + 3 * stride];

        s00 += x0 * w0;
        s01 += x0 * w1;
        s02 += x0 * w2;
        s03 += x0 * w3;
        s10 += x1 * w0;
        s11 += x1 * w1;
        s12 += x1 * w2;
        s13 += x1 * w3;
        s20 += x2 * w0;
        s21 += x2 * w1;
        s22 += x2 * w2;
        s23 += x2 * w3;
        s30 += x3 * w0;
        s31 += x3 * w1;
        s32 += x3 * w2;
        s33 += x3 * w3;
        weights += LANES;
    }
    sums[0][0] = s00; sums[0][1] = s01; sums[0][2] = s02; sums[0][3] = s03;
    sums[1][0] = s10; sums[1][1] = s11; sums[1][2] = s12; sums[1][3] = s13;
    sums[2][0] = s20; sums[2][1] = s21; sums[2][2] = s22; sums[2][3] = s23;
    sums[3][0] = s30; sums[3][1] = s31; sums[3][2] = s32; sums[3][3] = s33;
}

/*
 * Compute the convolution, max-pooling and activation of one block.
 *
 * Scale, bias and activation are increasing functions, so they are applied after the max-pooling, and only pooled
 * samples are stored. `input` includes its zero padding on both sides.
 */
static void run_block(const block *b, const float *input, float *output)
{
    const int filters = b->filters;
    const int length = b->kernel * b->inputs;
    const int convolved = b->pooled * ECG_SHOCK_POOL;
    float sums[TILE][LANES];
    int first, t, p, f;

    for (first = 0; first < filters; first += LANES) {
        const weight *weights = b->weights + first * length;
        const int lanes = filters - first < LANES ? filters - first : LANES;
        for (t = 0; t < convolved; t += TILE) {
            convolve_tile(input + t * b->inputs, b->inputs, weights, length, sums);
            for (p = 0; p < TILE && t + p < convolved; p++) {
                float *pooled = output + (t + p) / ECG_SHOCK_POOL * filters + first;
                const int is_first = (t + p) % ECG_SHOCK_POOL == 0;
                for (f = 0; f < lanes; f++) {
                    if (is_first || sums[p][f] > pooled[f]) {
                        pooled[f] = sums[p][f];
                    }
                }
            }
        }
    }
    for (t = 0; t < b->pooled; t++) {
        for (f = 0; f < filters; f++) {
            float *value = &output[t * filters + f];
#if ECG_SHOCK_INT8
            *value *= b->scales[f];
#endif
            *value = activation(*value + b->biases[f]);
        }
    }
}

static float *set_zero(float *from, int count)
{
    int i;

    for (i = 0; i < count; i++) {
        from[i] = 0.0f;
    }
    return from + count;
}

/* Return the memory for the input of a block, alternately at the start and at the end of the scratch memory. */
static float *input_of(int index, float *scratch)
{
    return index % 2 == 0 ? scratch : scratch + ECG_SHOCK_SCRATCH - ecg_shock_blocks[index].memory;
}

float ecg_shock_network(const float window_mv[ECG_SHOCK_WINDOW], float scratch[ECG_SHOCK_SCRATCH])
{
    const block *first = &ecg_shock_blocks[0];
    float *input = input_of(0, scratch);
    float *sample = set_zero(input, first->before);
    float logit = ECG_SHOCK_DENSE_BIAS;
    int i, t, f;

    for (i = 0; i < ECG_SHOCK_WINDOW; i++) {
        *sample++ = is_within(window_mv[i], ECG_SHOCK_MAX_MV) ? window_mv[i] : 0.0f;
    }
    set_zero(sample, first->memory - first->before - ECG_SHOCK_WINDOW);

    for (i = 0; i < ECG_SHOCK_BLOCKS; i++) {
        /* The entry after the last block describes the input of the global pooling. */
        const block *next = &ecg_shock_blocks[i + 1];
        const int before = next->before * next->inputs;
        const int used = ecg_shock_blocks[i].pooled * next->inputs;
        float *output = input_of(i + 1, scratch);

        set_zero(output, before);
        run_block(&ecg_shock_blocks[i], input, output + before);
        set_zero(output + before + used, next->memory - before - used);
        input = output;
    }

    for (f = 0; f < ECG_SHOCK_FEATURES; f++) {
        float max = input[f];
        for (t = 1; t < ecg_shock_blocks[ECG_SHOCK_BLOCKS - 1].pooled; t++) {
            if (input[t * ECG_SHOCK_FEATURES + f] > max) {
                max = input[t * ECG_SHOCK_FEATURES + f];
            }
        }
        logit += max * ecg_shock_dense[f];
    }
    return logit;
}

/* Update the state of the quality rules with a raw sample; `held` is the last valid sample if `mv` is invalid. */
static void update_quality(ecg_shock *s, float mv, float held, int valid)
{
    uint32_t *word = &s->invalid[s->next_flag / 32];
    const uint32_t bit = (uint32_t)1 << (s->next_flag % 32);
    const int last = ECG_SHOCK_STEPS - 1;

    s->invalid_count += (valid ? 0 : 1) - ((*word & bit) != 0u ? 1 : 0);
    *word = valid ? *word & ~bit : *word | bit;
    s->next_flag = s->next_flag + 1 < ECG_SHOCK_WINDOW_RAW ? s->next_flag + 1 : 0;

    /* A finite sample beyond ECG_SHOCK_MAX_MV is invalid, but still counts for the range. */
    if (is_finite(mv)) {
        if (mv < s->low[last]) {
            s->low[last] = mv;
        }
        if (mv > s->high[last]) {
            s->high[last] = mv;
        }
    }

    if (held != s->history[s->newest]) {
        s->constant_run = 0;
    } else if (s->constant_run < ECG_SHOCK_CONSTANT_RAW) {
        s->constant_run++;
    }
    if (s->constant_run >= ECG_SHOCK_CONSTANT_RAW) {
        s->since_constant = 0;
    } else if (s->since_constant < ECG_SHOCK_WINDOW_RAW) {
        s->since_constant++;
    }
}

/*
 * Add a raw sample to the history of the resampler. If it is invalid, add the last valid sample instead.
 *
 * At the start and after a long gap, the first valid sample fills the history, so that the filters receive no step.
 */
static void take_sample(ecg_shock *s, float mv)
{
    const int valid = is_within(mv, ECG_SHOCK_MAX_MV);
    const float held = valid ? mv : s->history[s->newest];
    int i;

    update_quality(s, mv, held, valid);
    if (!valid) {
        if (s->invalid_run < ECG_SHOCK_GAP_RAW) {
            s->invalid_run++;
        }
    } else {
        if (s->invalid_run >= ECG_SHOCK_GAP_RAW) {
            for (i = 0; i < ECG_SHOCK_HISTORY; i++) {
                s->history[i] = mv;
            }
            s->last_newest = mv;
        }
        s->invalid_run = 0;
    }
    s->newest = s->newest + 1 < ECG_SHOCK_HISTORY ? s->newest + 1 : 0;
    s->history[s->newest] = held;
}

/*
 * Return the difference between the next sample at 125 Hz and the previous one.
 *
 * The coefficients of each phase sum to 1. The resampled value is therefore the newest raw sample plus a weighted sum
 * of differences from it, which are small for any offset of the electrode.
 */
static float resample(ecg_shock *s)
{
    const float *taps = &ecg_shock_taps[s->phase * ECG_SHOCK_HISTORY];
    const float newest = s->history[s->newest];
    float rest = 0.0f, difference;
    int i, at = s->newest;

    for (i = 0; i < ECG_SHOCK_HISTORY; i++) {
        rest += taps[i] * (s->history[at] - newest);
        at = at > 0 ? at - 1 : ECG_SHOCK_HISTORY - 1;
    }
    difference = (newest - s->last_newest) + (rest - s->last_rest);
    s->last_newest = newest;
    s->last_rest = rest;
    return difference;
}

/*
 * Filter with second-order sections in transposed direct form II.
 *
 * The input is the difference between samples, which replaces one zero of the filter at 0 Hz.
 */
static float band_pass(ecg_shock *s, float x)
{
    int i;

    for (i = 0; i < ECG_SHOCK_SECTIONS; i++) {
        const float *c = ecg_shock_sections[i]; /* b0 b1 b2 a1 a2 */
        float *state = s->sections[i];
        const float y = c[0] * x + state[0];
        state[0] = c[1] * x - c[3] * y + state[1];
        state[1] = c[2] * x - c[4] * y;
        x = y;
    }
#if ECG_SHOCK_HAS_GRID
    {
        const float steps = x / ECG_SHOCK_GRID_MV;
        x = (float)(int32_t)(steps + (steps < 0.0f ? -0.5f : 0.5f)) * ECG_SHOCK_GRID_MV;
    }
#endif
    return x;
}

static int32_t check_quality(const ecg_shock *s)
{
    float low = s->low[0], high = s->high[0];
    int i;

    for (i = 1; i < ECG_SHOCK_STEPS; i++) {
        low = s->low[i] < low ? s->low[i] : low;
        high = s->high[i] > high ? s->high[i] : high;
    }
    if (s->invalid_count > ECG_SHOCK_MAX_INVALID_RAW) {
        return ECG_SHOCK_MISSING;
    }
    if (high - low > ECG_SHOCK_MAX_RANGE_MV) {
        return ECG_SHOCK_OUT_OF_RANGE;
    }
    if (high - low < ECG_SHOCK_MIN_RANGE_MV || s->since_constant < ECG_SHOCK_WINDOW_RAW - ECG_SHOCK_CONSTANT_RAW) {
        return ECG_SHOCK_FLAT;
    }
    return ECG_SHOCK_USABLE;
}

static void advise(ecg_shock *s, ecg_shock_advice *advice)
{
    const float logit = ecg_shock_network(s->window, s->scratch);

    advice->quality = check_quality(s);
    advice->logit = logit;
    advice->probability = 1.0f / (1.0f + exponential(-logit));
    advice->invalid_share = (float)s->invalid_count / (float)ECG_SHOCK_WINDOW_RAW;
    advice->shock = advice->quality == ECG_SHOCK_USABLE && logit >= ECG_SHOCK_THRESHOLD_LOGIT;
}

/* Set the range of a step to an empty range. */
static void clear_range(ecg_shock *s, int i)
{
    s->low[i] = FLT_MAX;
    s->high[i] = -FLT_MAX;
}

static void begin_step(ecg_shock *s)
{
    int i;

    for (i = 0; i < ECG_SHOCK_STEPS - 1; i++) {
        s->low[i] = s->low[i + 1];
        s->high[i] = s->high[i + 1];
    }
    clear_range(s, ECG_SHOCK_STEPS - 1);
}

static void drop_oldest(ecg_shock *s)
{
    int i;

    s->filled = ECG_SHOCK_WINDOW - ECG_SHOCK_STEP;
    for (i = 0; i < s->filled; i++) {
        s->window[i] = s->window[i + ECG_SHOCK_STEP];
    }
}

void ecg_shock_init(ecg_shock *s)
{
    int i;

    set_zero(s->history, ECG_SHOCK_HISTORY);
    s->newest = 0;
    s->phase = 0;
    s->last_newest = 0.0f;
    s->last_rest = 0.0f;
    set_zero(&s->sections[0][0], 2 * ECG_SHOCK_SECTIONS);

    s->invalid_run = ECG_SHOCK_GAP_RAW; /* as after a gap, because there is no valid sample yet */
    s->constant_run = -1;               /* the first sample has no previous one */
    s->since_constant = ECG_SHOCK_WINDOW_RAW;
    for (i = 0; i < ECG_SHOCK_FLAG_WORDS; i++) {
        s->invalid[i] = 0u;
    }
    s->next_flag = 0;
    s->invalid_count = 0;
    for (i = 0; i < ECG_SHOCK_STEPS; i++) {
        clear_range(s, i);
    }
    s->filled = 0;
}

/* Called just before the next sample at 125 Hz, when all raw samples of the previous ones have been processed. */
static int end_step(ecg_shock *s, ecg_shock_advice *advice)
{
    const int is_full = s->filled == ECG_SHOCK_WINDOW;

    if (is_full) {
        advise(s, advice);
        drop_oldest(s);
    }
    if ((ECG_SHOCK_WINDOW - s->filled) % ECG_SHOCK_STEP == 0) { /* steps end together with windows */
        begin_step(s);
    }
    return is_full;
}

int ecg_shock_push(ecg_shock *s, float mv, ecg_shock_advice *advice)
{
    int advised = 0;

    take_sample(s, mv);
    while (s->phase < ECG_SHOCK_UP) {
        s->window[s->filled++] = band_pass(s, resample(s));
        s->phase += ECG_SHOCK_DOWN;
        if (s->phase < ECG_SHOCK_UP) {
            advised |= end_step(s, advice);
        }
    }
    s->phase -= ECG_SHOCK_UP;
    if (s->phase < ECG_SHOCK_UP) {
        advised |= end_step(s, advice);
    }
    return advised;
}
