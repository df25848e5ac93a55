/* What NCCL does, between processes of one machine, by memory that they share: for tests of what is asked of it, with the numbers that come
 * of it. The ids of two communicators differ, so do the files in /dev/shm that ranks of each meet in. Signatures are those of nccl.h. */
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ID = 128, SLOT = 1 << 20, RANKS = 16 };
/* ncclResult_t and ncclDataType_t. */
enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4 };
enum { UINT8 = 1, FLOAT32 = 7, SUM = 0 };

typedef struct { char internal[ID]; } ncclUniqueId;

struct shared {
  atomic_int arrived;
  atomic_int round;
  atomic_int left;
  int groups[RANKS];
  int keys[RANKS];
  char slots[RANKS][SLOT];
};

struct comm {
  struct shared *shared;
  int rank, size, splits;
  char name[192];
};

static char last[256];

const char *ncclGetErrorString(int code) { return code == INVALID_ARGUMENT ? "invalid argument" : "unhandled system error"; }

const char *ncclGetLastError(struct comm *comm) {
  (void)comm;
  return last;
}

int ncclGetVersion(int *version) {
  *version = 22703;
  return SUCCESS;
}

/* With NCCL_COMM_ID every process makes the same id. */
int ncclGetUniqueId(ncclUniqueId *id) {
  const char *said = getenv("NCCL_COMM_ID");
  memset(id, 0, sizeof *id);
  if (said) {
    unsigned long hash = 5381;
    for (const char *it = said; *it; it++) hash = hash * 33 + (unsigned char)*it;
    snprintf(id->internal, ID, "fthost-nccl-%lx", hash);
  } else {
    snprintf(id->internal, ID, "fthost-nccl-%d", (int)getpid());
  }
  return SUCCESS;
}

static void barrier(struct comm *comm) {
  struct shared *shared = comm->shared;
  int round = atomic_load(&shared->round);
  if (atomic_fetch_add(&shared->arrived, 1) + 1 == comm->size) {
    atomic_store(&shared->arrived, 0);
    atomic_fetch_add(&shared->round, 1);
  } else {
    while (atomic_load(&shared->round) == round) sched_yield();
  }
}

static int join(struct comm **found, int size, const char *name, int rank) {
  if (size > RANKS || rank < 0 || rank >= size) return INVALID_ARGUMENT;
  int file = shm_open(name, O_CREAT | O_RDWR, 0600);
  if (file < 0 || ftruncate(file, sizeof(struct shared)) != 0) {
    snprintf(last, sizeof last, "no shared memory `%s`", name);
    return SYSTEM_ERROR;
  }
  struct comm *comm = calloc(1, sizeof *comm);
  comm->shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  comm->rank = rank;
  comm->size = size;
  snprintf(comm->name, sizeof comm->name, "%s", name);
  barrier(comm);
  *found = comm;
  return SUCCESS;
}

int ncclCommInitRank(struct comm **comm, int size, ncclUniqueId id, int rank) {
  return join(comm, size, id.internal, rank);
}

int ncclCommSplit(struct comm *comm, int color, int key, struct comm **found, void *config) {
  if (config) return INVALID_ARGUMENT;
  struct shared *shared = comm->shared;
  barrier(comm);
  shared->groups[comm->rank] = color;
  shared->keys[comm->rank] = key;
  barrier(comm);
  int size = 0, rank = 0;
  for (int other = 0; other < comm->size; other++) {
    if (shared->groups[other] != color) continue;
    size++;
    rank += shared->keys[other] < key;
  }
  char name[192];
  snprintf(name, sizeof name, "%s-%d-%d", comm->name, ++comm->splits, color);
  barrier(comm);
  return join(found, size, name, rank);
}

int ncclCommCount(struct comm *comm, int *count) {
  *count = comm->size;
  return SUCCESS;
}

int ncclCommUserRank(struct comm *comm, int *rank) {
  *rank = comm->rank;
  return SUCCESS;
}

/* Without the others: ncclCommDestroy may wait for them. */
int ncclCommAbort(struct comm *comm) {
  if (atomic_fetch_add(&comm->shared->left, 1) + 1 == comm->size) shm_unlink(comm->name);
  munmap(comm->shared, sizeof(struct shared));
  free(comm);
  return SUCCESS;
}

static size_t width(int type) { return type == UINT8 ? 1 : type == FLOAT32 ? 4 : 0; }

int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, struct comm *comm, void *stream) {
  size_t bytes = count * width(type);
  if (!stream || (count && !bytes) || root < 0 || root >= comm->size) return INVALID_ARGUMENT;
  for (size_t done = 0; done < bytes; done += SLOT) {
    size_t part = bytes - done < SLOT ? bytes - done : SLOT;
    if (comm->rank == root) memcpy(comm->shared->slots[root], (const char *)from + done, part);
    barrier(comm);
    memcpy((char *)to + done, comm->shared->slots[root], part);
    barrier(comm);
  }
  return SUCCESS;
}

int ncclAllGather(const void *from, void *to, size_t count, int type, struct comm *comm, void *stream) {
  size_t bytes = count * width(type);
  if (!stream || (count && !bytes)) return INVALID_ARGUMENT;
  for (size_t done = 0; done < bytes; done += SLOT) {
    size_t part = bytes - done < SLOT ? bytes - done : SLOT;
    memcpy(comm->shared->slots[comm->rank], (const char *)from + done, part);
    barrier(comm);
    for (int rank = 0; rank < comm->size; rank++)
      memcpy((char *)to + rank * bytes + done, comm->shared->slots[rank], part);
    barrier(comm);
  }
  return SUCCESS;
}

/* `to` gets the sums of `count` values that begin at `offset` of every rank's. */
static int sums(const float *from, float *to, size_t count, int ranks, struct comm *comm) {
  enum { VALUES = SLOT / sizeof(float) };
  /* Sums of all parts are made, of which this rank keeps its own: ranks do the same number of rounds. */
  for (int part = 0; part < ranks; part++) {
    for (size_t done = 0; done < count; done += VALUES) {
      size_t length = count - done < VALUES ? count - done : VALUES;
      memcpy(comm->shared->slots[comm->rank], from + part * count + done, length * sizeof(float));
      barrier(comm);
      if (ranks == 1 || part == comm->rank) {
        for (size_t at = 0; at < length; at++) {
          float sum = 0;
          for (int rank = 0; rank < comm->size; rank++) sum += ((const float *)comm->shared->slots[rank])[at];
          to[done + at] = sum;
        }
      }
      barrier(comm);
    }
  }
  return SUCCESS;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, struct comm *comm, void *stream) {
  if (!stream || type != FLOAT32 || op != SUM) return INVALID_ARGUMENT;
  return sums(from, to, count, 1, comm);
}

int ncclReduceScatter(const void *from, void *to, size_t count, int type, int op, struct comm *comm, void *stream) {
  if (!stream || type != FLOAT32 || op != SUM) return INVALID_ARGUMENT;
  return sums(from, to, count, comm->size, comm);
}
