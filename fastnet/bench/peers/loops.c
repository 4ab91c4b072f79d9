/* Training and prediction as plain C loops, for the compiler to optimise.

Sizes are constants, which the adapter gives with -D:

REAL              float or double
EXP, TANH, SQRT   the functions of math.h for it
ROWS              rows of a batch
N_SAMPLES         rows in all
N_INPUTS          columns of x
N_OUTPUTS         columns of y
N_PARAMETERS      weights and biases, layer by layer
LAYERS(X)         X(index, n_in, n_out, weights, bias, activation) for each layer, where weights and
                  bias are positions among the parameters, and bias is -1 in a layer without
REVERSED(X)       the same from the last layer to the first
LAST              index of the last layer
CANCELS           1 if the derivative by the last layer's input is a - y
MEAN              1 if gradients are divided by the number of rows
ADAM              1 for Adam, 0 for gradient descent
*/

#include <math.h>
#include <string.h>

typedef REAL real;

enum activation { identity, sigmoid, tanh_, relu, softmax };

#define INLINE static inline __attribute__((always_inline))
#define BUFFERS(i, n_in, n_out, w, b, act) static real a##i[ROWS * n_out], delta##i[ROWS * n_out];
LAYERS(BUFFERS)

static real gradient[N_PARAMETERS], first[N_PARAMETERS], second[N_PARAMETERS];
static double power_1, power_2;

void reset(void)
{
    memset(first, 0, sizeof first);
    memset(second, 0, sizeof second);
    power_1 = power_2 = 1.0;
}

INLINE void forward(const real *restrict in, const real *restrict w, const real *restrict b, real *restrict out,
                    int rows, int n_in, int n_out, enum activation act)
{
    for (int r = 0; r < rows; r++) {
        real *z = out + r * n_out;
        for (int j = 0; j < n_out; j++)
            z[j] = b ? b[j] : 0;
        for (int k = 0; k < n_in; k++)
            for (int j = 0; j < n_out; j++)
                z[j] += in[r * n_in + k] * w[k * n_out + j];
        if (act == sigmoid) {
            for (int j = 0; j < n_out; j++)
                z[j] = 1 / (1 + EXP(-z[j]));
        } else if (act == tanh_) {
            for (int j = 0; j < n_out; j++)
                z[j] = TANH(z[j]);
        } else if (act == relu) {
            for (int j = 0; j < n_out; j++)
                z[j] = z[j] > 0 ? z[j] : 0;
        } else if (act == softmax) {
            real largest = z[0], total = 0;
            for (int j = 1; j < n_out; j++)
                largest = z[j] > largest ? z[j] : largest;
            for (int j = 0; j < n_out; j++)
                z[j] = EXP(z[j] - largest);
            for (int j = 0; j < n_out; j++)
                total += z[j];
            for (int j = 0; j < n_out; j++)
                z[j] /= total;
        }
    }
}

/* Turns derivatives by an activation's output into those by its input. */
INLINE void through(real *restrict d, const real *restrict a, int n, enum activation act)
{
    for (int i = 0; i < n; i++) {
        if (act == sigmoid)
            d[i] *= a[i] * (1 - a[i]);
        else if (act == tanh_)
            d[i] *= 1 - a[i] * a[i];
        else if (act == relu)
            d[i] = a[i] > 0 ? d[i] : 0;
    }
}

INLINE void backward(const real *restrict in, const real *restrict d, real *restrict g_w, real *restrict g_b, int rows,
                     int n_in, int n_out)
{
    for (int i = 0; i < n_in * n_out; i++)
        g_w[i] = 0;
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < n_in; k++)
            for (int j = 0; j < n_out; j++)
                g_w[k * n_out + j] += in[r * n_in + k] * d[r * n_out + j];
    if (g_b) {
        for (int j = 0; j < n_out; j++)
            g_b[j] = 0;
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < n_out; j++)
                g_b[j] += d[r * n_out + j];
    }
}

INLINE void project(const real *restrict d, const real *restrict w, real *restrict below, int rows, int n_in, int n_out)
{
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < n_in; k++) {
            real total = 0;
            for (int j = 0; j < n_out; j++)
                total += d[r * n_out + j] * w[k * n_out + j];
            below[r * n_in + k] = total;
        }
}

INLINE void update(real *restrict p, int rows, double learning_rate, double beta_1, double beta_2, double epsilon)
{
    real scale = MEAN ? (real)1 / rows : 1;
    if (!ADAM) {
        real rate = learning_rate * scale;
        for (int i = 0; i < N_PARAMETERS; i++)
            p[i] -= rate * gradient[i];
        return;
    }
    power_1 *= beta_1;
    power_2 *= beta_2;
    real rate = learning_rate * sqrt(1 - power_2) / (1 - power_1), e = epsilon;
    real b1 = beta_1, b2 = beta_2, c1 = 1 - beta_1, c2 = 1 - beta_2;
    for (int i = 0; i < N_PARAMETERS; i++) {
        real g = gradient[i] * scale;
        first[i] = b1 * first[i] + c1 * g;
        second[i] = b2 * second[i] + c2 * g * g;
        p[i] -= rate * first[i] / (SQRT(second[i]) + e);
    }
}

#define FORWARD(i, n_in, n_out, w, b, act) \
    forward(below, p + (w), (b) < 0 ? 0 : p + (b), a##i, rows, n_in, n_out, act); \
    below = a##i;
#define OUTPUTS(i, n_in, n_out, w, b, act) outputs[i + 1] = a##i; deltas[i + 1] = delta##i; activations[i + 1] = act;
#define BACKWARD(i, n_in, n_out, w, b, act) \
    backward(outputs[i], delta##i, gradient + (w), (b) < 0 ? 0 : gradient + (b), rows, n_in, n_out); \
    if (i > 0) { \
        project(delta##i, p + (w), deltas[i], rows, n_in, n_out); \
        through(deltas[i], outputs[i], rows * n_in, activations[i]); \
    }

INLINE void step(real *restrict p, const real *restrict x, const real *restrict y, int rows, double learning_rate,
                 double beta_1, double beta_2, double epsilon)
{
    const real *below = x, *outputs[LAST + 2];
    real *deltas[LAST + 2];
    enum activation activations[LAST + 2];
    outputs[0] = x;
    deltas[0] = 0;
    activations[0] = identity;
    LAYERS(OUTPUTS)
    LAYERS(FORWARD)
    real *d = deltas[LAST + 1];
    for (int i = 0; i < rows * N_OUTPUTS; i++)
        d[i] = below[i] - y[i];
    if (!CANCELS)
        through(d, below, rows * N_OUTPUTS, activations[LAST + 1]);
    REVERSED(BACKWARD)
    update(p, rows, learning_rate, beta_1, beta_2, epsilon);
}

/* One epoch for each of n_epochs rows of order; without order the samples are taken as they stand. */
void train(real *restrict p, const real *restrict x, const real *restrict y, const long *order, long n_epochs,
           double learning_rate, double beta_1, double beta_2, double epsilon)
{
    static real batch_x[ROWS * N_INPUTS], batch_y[ROWS * N_OUTPUTS];
    for (long epoch = 0; epoch < n_epochs; epoch++)
        for (long low = 0; low < N_SAMPLES; low += ROWS) {
            const int rows = N_SAMPLES % ROWS == 0 || low + ROWS <= N_SAMPLES ? ROWS : N_SAMPLES - low;
            const real *xs = x + low * N_INPUTS, *ys = y + low * N_OUTPUTS;
            if (order) {
                for (int r = 0; r < rows; r++) {
                    long row = order[epoch * N_SAMPLES + low + r];
                    memcpy(batch_x + r * N_INPUTS, x + row * N_INPUTS, N_INPUTS * sizeof(real));
                    memcpy(batch_y + r * N_OUTPUTS, y + row * N_OUTPUTS, N_OUTPUTS * sizeof(real));
                }
                xs = batch_x;
                ys = batch_y;
            }
            step(p, xs, ys, rows, learning_rate, beta_1, beta_2, epsilon);
        }
}

void predict(const real *restrict p, const real *restrict x, real *restrict out, long n_rows)
{
    for (long low = 0; low < n_rows; low += ROWS) {
        const int rows = low + ROWS <= n_rows ? ROWS : n_rows - low;
        const real *below = x + low * N_INPUTS;
        LAYERS(FORWARD)
        memcpy(out + low * N_OUTPUTS, below, rows * N_OUTPUTS * sizeof(real));
    }
}
