/*
 * Runs the generated code on float32 numbers from stdin, and writes float32 numbers to stdout. It includes the source
 * to call static functions too.
 */
#include "ecg_shock.c"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static ecg_shock device;

static void put(float value)
{
    if (fwrite(&value, sizeof value, 1, stdout) != 1) {
        exit(3);
    }
}

/* For each advice: number of samples so far, logit, probability, shock, quality, proportion of invalid samples. */
static void stream(void)
{
    ecg_shock_advice advice;
    float mv;
    long taken = 0;

    ecg_shock_init(&device);
    while (fread(&mv, sizeof mv, 1, stdin) == 1) {
        taken++;
        if (ecg_shock_push(&device, mv, &advice)) {
            put((float)taken);
            put(advice.logit);
            put(advice.probability);
            put((float)advice.shock);
            put((float)advice.quality);
            put(advice.invalid_share);
        }
    }
}

static void preprocess(void)
{
    float mv;

    ecg_shock_init(&device);
    while (fread(&mv, sizeof mv, 1, stdin) == 1) {
        take_sample(&device, mv);
        for (; device.phase < ECG_SHOCK_UP; device.phase += ECG_SHOCK_DOWN) {
            put(band_pass(&device, resample(&device)));
        }
        device.phase -= ECG_SHOCK_UP;
    }
}

static void network(void)
{
    static float window[ECG_SHOCK_WINDOW];

    memset(device.scratch, 0xff, sizeof device.scratch); /* NaN, which shows if unwritten memory is read */
    while (fread(window, sizeof window, 1, stdin) == 1) {
        put(ecg_shock_network(window, device.scratch));
    }
}

/* Duration of one run of the network in microseconds, the shortest of several rounds. */
static void time_network(void)
{
    static float window[ECG_SHOCK_WINDOW];
    double least = 1e9;
    volatile float sink = 0.0f;
    int round, i;

    if (fread(window, sizeof window, 1, stdin) != 1) {
        exit(4);
    }
    for (round = 0; round < 20; round++) {
        const clock_t started = clock();
        for (i = 0; i < 100; i++) {
            sink += ecg_shock_network(window, device.scratch);
        }
        if ((double)(clock() - started) < least) {
            least = (double)(clock() - started);
        }
    }
    put((float)(least / CLOCKS_PER_SEC * 1e6 / 100));
}

static void exponentials(void)
{
    float x;

    while (fread(&x, sizeof x, 1, stdin) == 1) {
        put(exponential(x));
    }
}

int main(int argc, char **argv)
{
    const char *job = argc == 2 ? argv[1] : "";

    if (strcmp(job, "stream") == 0) {
        stream();
    } else if (strcmp(job, "preprocess") == 0) {
        preprocess();
    } else if (strcmp(job, "network") == 0) {
        network();
    } else if (strcmp(job, "time") == 0) {
        time_network();
    } else if (strcmp(job, "exp") == 0) {
        exponentials();
    } else if (strcmp(job, "sizeof") == 0) {
        put((float)sizeof(ecg_shock));
    } else {
        return 2;
    }
    return 0;
}
