/*
 * Shock advice from one ECG lead, sample by sample: the preprocessing and the network of an ecg_shock bundle in C99.
 *
 * Not a medical device, and not a claim of conformity with any standard.
 *
 *     static ecg_shock lead;
 *     ecg_shock_advice advice;
 *
 *     ecg_shock_init(&lead);
 *     for each sample in mV, NAN where it is invalid:
 *         if (ecg_shock_push(&lead, sample, &advice) && advice.shock) ...
 *
 * - No heap, no variables outside the struct, and no library functions, not even of libm. A compiler may insert calls
 *   of memcpy, memset and memmove, as in any freestanding program.
 * - Single precision only. Invalid samples are recognised by their bits, so this code also works with -ffast-math.
 * - Reentrant: use one struct for each lead, and one caller at a time for each struct. No recursion.
 *
 * Quality: a shock is never advised if more than 10 % of the window's samples are invalid, if the samples span more
 * than 50 mV or less than 10 uV, or if one value repeats for 1 s. This code does NOT have the Python package's rules
 * for saturation, ringing of the filter after a fault before the window, broadband noise and mains hum. The device
 * must detect saturation, artefacts and detached leads itself, and pass NAN for invalid samples. The JSON file has all
 * rules, with their limits.
 */
#ifndef ECG_SHOCK_H
#define ECG_SHOCK_H

#include <stdint.h>

#include "ecg_shock_model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Samples at 125 Hz from one advice to the next. To change it, define it in all compilation units. */
#ifndef ECG_SHOCK_STEP
#define ECG_SHOCK_STEP 125
#endif
#if ECG_SHOCK_STEP < 2 || ECG_SHOCK_STEP > ECG_SHOCK_WINDOW
#error "ECG_SHOCK_STEP must lie between 2 and ECG_SHOCK_WINDOW"
#endif

/* Larger samples, in mV, are invalid: no electrode gives 10 V. With this limit no later value can overflow. */
#define ECG_SHOCK_MAX_MV 10000.0f

/* Steps in one window. If the oldest step begins before the window, all its samples count for the window's range. */
#define ECG_SHOCK_STEPS ((ECG_SHOCK_WINDOW + ECG_SHOCK_STEP - 1) / ECG_SHOCK_STEP)
#define ECG_SHOCK_FLAG_WORDS ((ECG_SHOCK_WINDOW_RAW + 31) / 32)

/* sizeof(ecg_shock), which is the same on every machine, because every member has 4 bytes. */
#define ECG_SHOCK_BYTES                                                                                          \
    (4 * (ECG_SHOCK_HISTORY + 2 * ECG_SHOCK_SECTIONS + ECG_SHOCK_WINDOW + ECG_SHOCK_SCRATCH +                    \
          ECG_SHOCK_FLAG_WORDS + 2 * ECG_SHOCK_STEPS + 10))

/* Whether a window is usable; if several reasons apply, the first one is given. */
enum {
    ECG_SHOCK_USABLE = 0,
    ECG_SHOCK_MISSING = 1,      /* more than 10 % of the samples are invalid */
    ECG_SHOCK_OUT_OF_RANGE = 2, /* the samples span more than 50 mV */
    ECG_SHOCK_FLAT = 3          /* they span less than 10 uV, or one value repeats for 1 s */
};

typedef struct {
    int32_t shock;       /* 1 if a shock is advised, which needs a usable window; otherwise 0 */
    int32_t quality;     /* ECG_SHOCK_USABLE, or the reason why the window is not usable */
    float logit;         /* of shockable; a shock is advised from ECG_SHOCK_THRESHOLD_LOGIT on */
    float probability;   /* of shockable, 0 to 1; meaningless, like the logit, if the window is not usable */
    float invalid_share; /* proportion of invalid samples in the window, 0 to 1 */
} ecg_shock_advice;

/* The state of one lead. Allocate it statically; its members are not part of the interface. */
typedef struct {
    float history[ECG_SHOCK_HISTORY]; /* ring buffer of the raw samples that the resampler needs, mV */
    int32_t newest;                   /* index of the newest sample in it */
    int32_t phase;                    /* time from the newest sample to the next output, in 1 / (ECG_SHOCK_UP * fs) */
    float last_newest, last_rest;     /* two numbers whose sum is the last output of the resampler, mV */
    float sections[ECG_SHOCK_SECTIONS][2]; /* state of the band-pass */

    int32_t invalid_run;    /* number of consecutive invalid samples so far */
    int32_t constant_run;   /* number of consecutive samples so far that equal the previous one */
    int32_t since_constant; /* number of samples since the last full second of equal values */
    uint32_t invalid[ECG_SHOCK_FLAG_WORDS]; /* ring buffer with a bit for each raw sample of the window */
    int32_t next_flag;                      /* index of the next bit */
    int32_t invalid_count;                  /* number of invalid samples in the window */
    float low[ECG_SHOCK_STEPS], high[ECG_SHOCK_STEPS]; /* range of the raw samples in each step, newest last, mV */

    int32_t filled;                 /* number of samples in `window` */
    float window[ECG_SHOCK_WINDOW]; /* preprocessed, 125 Hz, mV */
    float scratch[ECG_SHOCK_SCRATCH];
} ecg_shock;

typedef char ecg_shock_has_the_stated_size[sizeof(ecg_shock) == ECG_SHOCK_BYTES ? 1 : -1];

/* Reset the state. Call it before the first sample. */
void ecg_shock_init(ecg_shock *s);

/*
 * Process the next sample, in mV at ECG_SHOCK_FS, NaN if it is invalid.
 *
 * Returns 1 if new advice was written to *advice, otherwise 0. The first advice comes after one full window, and
 * further advice after every ECG_SHOCK_STEP samples at 125 Hz. The network is run only if there is advice.
 */
int ecg_shock_push(ecg_shock *s, float mv, ecg_shock_advice *advice);

/*
 * Run only the network, on a preprocessed window, and return the logit of shockable.
 *
 * Samples that are NaN, infinite or beyond ECG_SHOCK_MAX_MV count as 0. The scratch memory is overwritten.
 */
float ecg_shock_network(const float window_mv[ECG_SHOCK_WINDOW], float scratch[ECG_SHOCK_SCRATCH]);

/*
 * In selftest.c: run golden vectors, and return the number of wrong ones. The state is overwritten and reset.
 */
int ecg_shock_selftest(ecg_shock *s);

#ifdef __cplusplus
}
#endif

#endif
