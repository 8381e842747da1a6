// The kernels of the emulated GPU (kernels.c) with a fault in a launch as it arrives from the wheel's host code.
//
// PLANTED_LAUNCH names it: the beginning of the kernel's name, a field, a place, a change. The field is grid or block (the
// place is the dimension), shared (dynamic shared memory in bytes, place 0) or argument (the place is the parameter; of one
// with more than 8 bytes, its first 4). The change is +N, -N, /N or =N. What would become 0 stays as it is: every driver
// refuses that. PLANTED_REPORT is a file for the number of launches that were changed, written if the process ends by itself.
#define simulated_prepare simulated_prepare_unchanged
#include "../../build_config/testbed/emulated_device/kernels.c"
#undef simulated_prepare

enum { FIELDS = 4, LONGEST = 512, MAX_PARAMETERS = 64 };

static uint64_t planted;

static uint64_t changed(uint64_t value, const char * change) {
    const uint64_t number = strtoull(change + 1, NULL, 10);
    const uint64_t result = change[0] == '+'   ? value + number
                            : change[0] == '-' ? value - number
                            : change[0] == '/' ? value / number
                                               : number;
    planted += result != value && result != 0;
    return result != 0 ? result : value;
}

// Prepare the launch with another value of a parameter, which lives as long as this call.
static int with_argument(struct simulated_launch * launch, struct simulated_work * work, unsigned place, const char * change) {
    const struct ptx_image * image = find(launch->kernel, launch->code)->image;
    void *                   arguments[MAX_PARAMETERS];
    uint8_t                  bytes[LONGEST];
    if (image == NULL || place >= image->parameters || image->parameters > MAX_PARAMETERS ||
        image->parameter_sizes[place] > sizeof bytes) {
        return cudaErrorInvalidValue;
    }
    const uint32_t size  = image->parameter_sizes[place];
    const uint32_t width = size < 8 ? size : size == 8 ? 8 : 4;
    uint64_t       value = 0;
    memcpy(arguments, launch->arguments, image->parameters * sizeof arguments[0]);
    memcpy(bytes, launch->arguments[place], size);
    memcpy(&value, bytes, width);
    value = changed(value, change);
    memcpy(bytes, &value, width);
    arguments[place]  = bytes;
    launch->arguments = arguments;
    return simulated_prepare_unchanged(launch, work);
}

int simulated_prepare(const struct simulated_launch * launch, struct simulated_work * work) {
    const char * fault = getenv("PLANTED_LAUNCH");
    char         kernel[LONGEST], field[LONGEST], change[LONGEST];
    unsigned     place;
    if (fault == NULL || sscanf(fault, "%511s %511s %u %511s", kernel, field, &place, change) != FIELDS ||
        strncmp(launch->kernel, kernel, strlen(kernel)) != 0) {
        return simulated_prepare_unchanged(launch, work);
    }
    struct simulated_launch wrong = *launch;
    if (strcmp(field, "argument") == 0) {
        return with_argument(&wrong, work, place, change);
    }
    if (strcmp(field, "shared") == 0) {
        wrong.shared = changed(launch->shared, change);
    } else {
        uint32_t * sizes = strcmp(field, "grid") == 0 ? wrong.grid : wrong.block;
        sizes[place]     = (uint32_t) changed(sizes[place], change);
    }
    return simulated_prepare_unchanged(&wrong, work);
}

__attribute__((destructor)) static void report_planted(void) {
    const char * path = getenv("PLANTED_REPORT");
    FILE *       file = path != NULL ? fopen(path, "w") : NULL;
    if (file != NULL) {
        fprintf(file, "%llu\n", (unsigned long long) planted);
        fclose(file);
    }
}
