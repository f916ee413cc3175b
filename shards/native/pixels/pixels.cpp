// What is done to a picture's pixels beside resizing, which is OpenCV's: bit for bit what
// shards/pixels.py does with numpy, in one pass over memory each.

#include <cstdint>

extern "C" {

// rgbx: uint8 [count, 4] → rgb: float32 [count, 3].
void widen(const uint8_t* rgbx, float* rgb, int64_t count) {
    for (int64_t pixel = 0; pixel < count; ++pixel) {
        for (int channel = 0; channel < 3; ++channel) {
            rgb[3 * pixel + channel] = static_cast<float>(rgbx[4 * pixel + channel]);
        }
    }
}

// rgb: float32 [rows · 16, columns · 16, 3] → patches: float32 [rows, columns, 3, 16, 16], each
// value over 255, less its channel's mean, over its deviation.
void cut(const float* rgb, float* patches, int64_t rows, int64_t columns, const float* mean,
         const float* deviation) {
    constexpr int64_t side = 16, width = 3 * side;
    // Of the values of one line of a patch, as they lie: division takes whole registers so.
    float means[width], deviations[width], line_values[width];
    for (int64_t i = 0; i < width; ++i) {
        means[i] = mean[i % 3];
        deviations[i] = deviation[i % 3];
    }
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t line = 0; line < side; ++line) {
            const float* from = rgb + (row * side + line) * columns * width;
            for (int64_t column = 0; column < columns; ++column, from += width) {
                float* to = patches + ((row * columns + column) * width + line) * side;
                for (int64_t i = 0; i < width; ++i) {
                    line_values[i] = (from[i] / 255.0f - means[i]) / deviations[i];
                }
                for (int64_t x = 0; x < side; ++x) {
                    to[x] = line_values[3 * x];
                    to[x + side * side] = line_values[3 * x + 1];
                    to[x + 2 * side * side] = line_values[3 * x + 2];
                }
            }
        }
    }
}

}  // extern "C"
