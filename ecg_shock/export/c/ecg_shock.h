/*
 * Shock advice from one ECG lead, sample by sample: the preprocessing and the network of an ecg_shock bundle in C99.
 *
 * Not a medical device, and no claim of conformity with any standard.
 *
 *     static ecg_shock lead;
 *     ecg_shock_advice advice;
 *
 *     ecg_shock_init(&lead);
 *     for each sample in mV, NAN where it is invalid:
 *         if (ecg_shock_push(&lead, sample, &advice) && advice.shock) ...
 *
 * - No heap, no variable outside the struct, no function of a library: neither libm nor any other. A compiler may still
 *   call memcpy, memset and memmove on its own account, as C compilers do in freestanding programs too.
 * - Single precision throughout. Whether a sample is valid is read from its bits, which -ffast-math leaves alone.
 * - Reentrant: one struct for each lead, one caller at a time for each struct. No recursion.
 *
 * Quality: a shock is never advised where more than 10 % of the window's samples are invalid, where they span more than
 * 50 mV or less than 10 uV, or where one value repeats for 1 s. The Python package's rules for saturation, a filter that
 * rings with what came before the window, broadband noise and mains hum are NOT in this code. A device brings its own
 * detection of saturation, artefacts and detached leads, and passes NAN for what it knows to be invalid.
 */
#ifndef ECG_SHOCK_H
#define ECG_SHOCK_H

#include <stdint.h>

#include "ecg_shock_model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Samples at 125 Hz from one advice to the next; define it for the whole build to change it. */
#ifndef ECG_SHOCK_STEP
#define ECG_SHOCK_STEP 125
#endif
#if ECG_SHOCK_STEP < 2 || ECG_SHOCK_STEP > ECG_SHOCK_WINDOW
#error "ECG_SHOCK_STEP must lie between 2 and ECG_SHOCK_WINDOW"
#endif

/* Larger samples, in mV, are taken for invalid: no electrode gives 10 V. With it no later value can overflow. */
#define ECG_SHOCK_MAX_MV 10000.0f

/* Steps that one window touches. If it is no whole number of them, the range of the oldest step counts in full. */
#define ECG_SHOCK_STEPS ((ECG_SHOCK_WINDOW + ECG_SHOCK_STEP - 1) / ECG_SHOCK_STEP)
#define ECG_SHOCK_FLAG_WORDS ((ECG_SHOCK_WINDOW_RAW + 31) / 32)

/* sizeof(ecg_shock): every member has 4 bytes, so that it is the same on every machine. */
#define ECG_SHOCK_BYTES                                                                                          \
    (4 * (ECG_SHOCK_HISTORY + 2 * ECG_SHOCK_SECTIONS + ECG_SHOCK_WINDOW + ECG_SHOCK_SCRATCH +                    \
          ECG_SHOCK_FLAG_WORDS + 2 * ECG_SHOCK_STEPS + 10))

/* Why a window is not usable, the first that holds. */
enum {
    ECG_SHOCK_USABLE = 0,
    ECG_SHOCK_MISSING = 1,      /* more than 10 % of the samples are invalid */
    ECG_SHOCK_OUT_OF_RANGE = 2, /* the samples span more than 50 mV */
    ECG_SHOCK_FLAT = 3          /* they span less than 10 uV, or one value repeats for 1 s */
};

typedef struct {
    int32_t shock;       /* 1: a shock is advised; only where the window is usable */
    int32_t quality;     /* ECG_SHOCK_USABLE, or why not */
    float logit;         /* of shockable; a shock is advised from ECG_SHOCK_THRESHOLD_LOGIT on */
    float probability;   /* of shockable, 0 to 1; logit and probability mean nothing where the window is not usable */
    float invalid_share; /* of the window's samples, 0 to 1 */
} ecg_shock_advice;

/* Everything that is remembered of one lead. Allocate it statically; its members are not part of the interface. */
typedef struct {
    float history[ECG_SHOCK_HISTORY]; /* raw samples that the resampler needs, a ring buffer, mV */
    int32_t newest;                   /* index of the newest one */
    int32_t phase;                    /* from the newest raw sample to the next output, in 1 / (ECG_SHOCK_UP * fs) */
    float last_newest, last_rest;     /* the last output of the resampler, as the sum of two numbers, mV */
    float sections[ECG_SHOCK_SECTIONS][2];

    int32_t invalid_run;   /* invalid samples in a row up to now */
    int32_t constant_run;  /* samples up to now that equal the one before */
    int32_t since_constant; /* samples since the end of the last 1 s of one value */
    uint32_t invalid[ECG_SHOCK_FLAG_WORDS]; /* one bit for each raw sample of the window, a ring buffer */
    int32_t flag;                           /* index of the next bit */
    int32_t invalid_count;
    float low[ECG_SHOCK_STEPS], high[ECG_SHOCK_STEPS]; /* range of the raw samples in each step, newest last, mV */

    int32_t filled;
    float window[ECG_SHOCK_WINDOW]; /* preprocessed, 125 Hz, mV */
    float scratch[ECG_SHOCK_SCRATCH];
} ecg_shock;

typedef char ecg_shock_has_the_stated_size[sizeof(ecg_shock) == ECG_SHOCK_BYTES ? 1 : -1];

/* Forget everything. To be called before the first sample. */
void ecg_shock_init(ecg_shock *s);

/*
 * Take the next sample, in mV at ECG_SHOCK_FS; NaN where it is invalid.
 *
 * Returns 1 if there is new advice, 0 otherwise, when *advice is left alone. The first advice comes after one whole
 * window, and further ones every ECG_SHOCK_STEP. This call runs the network, others only the filters.
 */
int ecg_shock_push(ecg_shock *s, float mv, ecg_shock_advice *advice);

/*
 * Run the network alone on a window that is preprocessed already, and return the logit of shockable.
 *
 * Samples that are NaN, infinite or beyond ECG_SHOCK_MAX_MV count as 0. Scratch is overwritten.
 */
float ecg_shock_network(const float window_mv[ECG_SHOCK_WINDOW], float scratch[ECG_SHOCK_SCRATCH]);

#ifdef __cplusplus
}
#endif

#endif
