/* A stand-in for NVIDIA's libnvidia-ml.so.1: the calls that llamamgr makes, answered from the folder FAKE_GPUS.
 *
 * <folder>/<NN>/uuid, address, total   one GPU each, NN its NVML index
 * <folder>/<NN>/held/<pid>             bytes that a process holds there
 * <folder>/broken                      the driver is there and every call fails
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, UNKNOWN = 999 };

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { char legacy[16]; unsigned domain, bus, device, pci_device, pci_subsystem; char address[32]; } Pci;
typedef struct { unsigned pid; unsigned long long used; unsigned instance, compute_instance; } Process;

static int opened;

static const char *folder(void) { return getenv("FAKE_GPUS"); }

static int place(char *out, size_t size, void *handle, const char *name) {
    return snprintf(out, size, "%s/%02d/%s", folder(), (int)((long)handle - 1), name);
}

static int text(void *handle, const char *name, char *out, int size) {
    char path[512];
    place(path, sizeof path, handle, name);
    FILE *file = fopen(path, "r");
    if (!file) return NOT_FOUND;
    size_t got = fread(out, 1, size - 1, file);
    out[got] = 0;
    fclose(file);
    return SUCCESS;
}

static unsigned long long number(void *handle, const char *name) {
    char content[64] = "";
    text(handle, name, content, sizeof content);
    return strtoull(content, 0, 10);
}

int nvmlInit_v2(void) {
    char path[512];
    if (!folder()) return UNKNOWN;
    snprintf(path, sizeof path, "%s/broken", folder());
    if (!access(path, F_OK)) return UNKNOWN;
    opened++;
    return SUCCESS;
}

int nvmlShutdown(void) { return opened-- > 0 ? SUCCESS : UNINITIALIZED; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    char out[16];
    if (!opened) return UNINITIALIZED;
    for (*count = 0; !text((void *)(long)(*count + 1), "total", out, sizeof out); (*count)++) {}
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = (void *)(long)(index + 1);
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned size) { return text(handle, "uuid", uuid, size); }

int nvmlDeviceGetPciInfo_v3(void *handle, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    return text(handle, "address", pci->address, sizeof pci->address);
}

static int holders(void *handle, unsigned *count, Process *rows, unsigned long long *sum) {
    char path[512], name[300];
    unsigned found = 0;
    place(path, sizeof path, handle, "held");
    DIR *open = opendir(path);
    for (struct dirent *entry; open && (entry = readdir(open));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "held/%s", entry->d_name);
        unsigned long long used = number(handle, name);
        if (sum) *sum += used;
        if (rows && found < *count) rows[found] = (Process){(unsigned)atoi(entry->d_name), used, ~0u, ~0u};
        found++;
    }
    if (open) closedir(open);
    if (count && found > *count) return *count = found, INSUFFICIENT_SIZE;
    if (count) *count = found;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    memory->total = number(handle, "total");
    memory->used = 0;
    holders(handle, 0, 0, &memory->used);
    memory->free = memory->total > memory->used ? memory->total - memory->used : 0;
    return SUCCESS;
}

/* FAKE_NVML_PIDS=host: as in a container, where the driver tells the numbers of the host's processes */
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, Process *rows) {
    const char *whose = getenv("FAKE_NVML_PIDS");
    int code = holders(handle, count, rows, 0);
    for (unsigned i = 0; !code && whose && i < *count; i++) rows[i].pid += 4000000;
    return code;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, Process *rows) {
    (void)handle, (void)rows;
    *count = 0;
    return SUCCESS;
}
