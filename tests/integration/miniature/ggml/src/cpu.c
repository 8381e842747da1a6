void scale(float * x, float by, int n);

void scale(float * x, float by, int n) {
    for (int i = 0; i < n; i++) {
        x[i] *= by;
    }
}
