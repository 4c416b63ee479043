/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The pager's state: images being filled, and the VMs that wait for their pages.
 *
 *    control.c   requests in, replies and events out
 *    pager.c     the life of an image: opened, filled, sealed, or failed; and gone
 *    fault.c     VMs: what they wait for, waking them
 *    schedule.c  what is read next
 *    fill.c      what was read, checked and written into the memfd
 *    ring.c      io_uring and buffers
 *    workers.c   threads
 *
 * Everything belongs to the main thread. Of an image the workers use what does not change while
 * they do: its descriptors and its memory. The main thread never waits for a disk or for a VM.
 */

#include "snapshot/snapshot.h"
#include "uffd/control.h"
#include "uffd/ring.h"
#include "uffd/workers.h"

#include <linux/userfaultfd.h>

#define UFFD_CHUNK_PAGES ((unsigned)(SNAPSHOT_CHUNK_BYTES / SNAPSHOT_PAGE_BYTES))
_Static_assert(UFFD_CHUNK_PAGES == 16, "the pages of a chunk are the bits of a uint16_t");

/* Messages that one read of a userfaultfd takes. */
#define UFFD_VM_MESSAGES 8
/* What one job decodes: so much at most lies before a fault that comes while all threads work. */
#define UFFD_PIECE_CHUNKS 4
#define UFFD_PIECE_PAGES  (UFFD_PIECE_CHUNKS * UFFD_CHUNK_PAGES)
_Static_assert(UFFD_PIECE_PAGES % SNAPSHOT_WS_BLOCK_PAGES == 0, "pieces are whole blocks");
/* A read of well compressed or scattered chunks ends here and not at its bytes. */
#define UFFD_READ_PIECES 16
_Static_assert(UFFD_LARGE_TARGET_BYTES <= UFFD_READ_PIECES * UFFD_PIECE_PAGES * SNAPSHOT_PAGE_BYTES,
	       "a buffer of the working set has not more pieces than a read");
_Static_assert(UFFD_SMALL_CHUNKS <= UFFD_PIECE_CHUNKS, "what is asked for is one piece");

enum uffd_image_state {
	UFFD_IMAGE_OPENING,  /* a worker reads the chunk table; VMs may come, their faults wait */
	UFFD_IMAGE_FILLING,  /* reads and jobs are under way */
	UFFD_IMAGE_FILLED,   /* every page is there; VMs are let go, some at a time */
	UFFD_IMAGE_SEALING,  /* no VM is left; a worker seals, or the next attempt is due */
	UFFD_IMAGE_COMPLETE, /* only its id is of use: a VM that comes is let go at once */
	UFFD_IMAGE_FAILED,   /* nothing is read; what is there still serves faults */
	UFFD_IMAGE_CLOSING,  /* gone: a worker gives everything back; then it is freed */
};

enum uffd_chunk_state {
	UFFD_CHUNK_ABSENT,
	UFFD_CHUNK_WANTED,  /* a fault asked for it; in image->wanted */
	UFFD_CHUNK_READING, /* from the submission of the read until all of it is written */
	UFFD_CHUNK_PRESENT,
};

struct uffd_chunk {
	uint16_t present; /* bit n: page n is in the memfd, checked */
	uint16_t coming;  /* bit n: page n is in the working set, which is on its way */
	uint8_t state;	  /* enum uffd_chunk_state */
	bool awaited;	  /* a VM has its bit set in vm->waiting */
};

struct uffd_counters {
	uint64_t filled_bytes;	    /* of guest memory, zero chunks aside */
	uint64_t working_set_bytes; /* of it, from the working set */
	uint64_t read_bytes;	    /* of the file */
	uint64_t faults;
	uint64_t faults_present; /* of them, for pages that were there */
	uint64_t demand_chunks;	 /* zero chunks aside */
	uint64_t background_chunks;
};

struct uffd_image {
	struct base_link link; /* in pager->images */
	struct uffd_pager *pager;
	uint64_t id;
	enum uffd_image_state state;
	uint64_t start_ns; /* CLOCK_MONOTONIC at IMAGE */

	int memfd;     /* writable */
	int file_fd;   /* of the memory file, as it came */
	int direct_fd; /* the same with O_DIRECT, or -1 */
	bool direct;   /* reads use direct_fd */
	uint64_t bytes;
	uint64_t flags; /* enum pager_fill_flags */
	char table_digest[SNAPSHOT_DIGEST_LENGTH + 1];
	struct snapshot_memory *memory; /* from FILLING on */
	uint64_t n_chunks;
	struct uffd_chunk *chunks;
	uint64_t missing_bytes; /* of what is not zero */

	/* Chunks that faults asked for, in their order. A chunk is asked for once in its life, so
	 * there is room for all. Those whose state is not WANTED any more are passed over. */
	uint32_t *wanted;
	uint64_t n_wanted, next_wanted;
	uint64_t next_page;		 /* of the working set, to be read */
	uint64_t ws_left;		 /* pages of the working set that are not written yet */
	uint64_t next_background;	 /* chunk */
	uint64_t background_bytes_per_s; /* 0: no limit */
	uint64_t background_ns;		 /* the next background read not before */

	struct base_link vms;
	unsigned n_reads; /* from a read's submission until the last of its pieces is done */
	struct uffd_counters counters;

	/* The one job about the image itself: open, seal or close. */
	struct uffd_job job;
	bool job_runs;
	int job_result;
	struct base_error job_error;
	uint64_t retry_ns; /* SEALING: the next attempt; 0: none is due */

	uint64_t image_sequence; /* of the IMAGE request; 0: answered */
	uint64_t gone_sequence;	 /* of the IMAGE_GONE request; 0: none */
};

struct uffd_vm {
	struct base_link link;	  /* in image->vms */
	struct uffd_image *image; /* NULL: let go; freed when its read has ended */
	uint64_t id;
	uint64_t address; /* of the guest memory in its process */
	int uffd;
	bool reading; /* a read of the userfaultfd is in the ring; or, with `polling`, a poll */
	bool polling;
	struct uffd_msg messages[UFFD_VM_MESSAGES];
	uint64_t waiting[]; /* a bit for each chunk: it waits there */
};

/* Consecutive chunks, or pages of the working set, of one read. */
struct uffd_piece {
	struct uffd_job job;
	struct uffd_read *read;
	uint64_t first, end;
	uint16_t missing[UFFD_PIECE_CHUNKS]; /* pages to write, by chunk - first; of chunks only */
	int result;
	char *error; /* owned; NULL: none, or no memory for it */
};

enum uffd_read_kind {
	UFFD_READ_DEMAND,
	UFFD_READ_WORKING_SET,
	UFFD_READ_BACKGROUND,
};

struct uffd_read {
	struct uffd_image *image; /* NULL: not in use */
	struct uffd_buffer *buffer;
	enum uffd_read_kind kind;
	uint64_t file_offset; /* aligned down */
	size_t size;	      /* up to the end of what is wanted */
	size_t got;	      /* how much of it has been read */
	struct uffd_job job;  /* reads what the ring did not */
	int job_result;
	struct base_error job_error;
	unsigned n_pieces, n_left; /* pieces of it; those that are not done */
	struct uffd_piece pieces[UFFD_READ_PIECES];
};

struct uffd_control {
	int socket;		/* borrowed */
	struct base_link queue; /* messages that the socket did not take yet */
	bool armed;
	bool orphaned; /* the manager is gone: nothing is taken or said any more */
	bool closed;   /* there is no memory to answer it, or it is no manager */
};

struct uffd_pager {
	struct uffd_ring ring;
	struct uffd_workers workers;
	struct uffd_control control;
	uint64_t jobs_count;	 /* what the eventfd gives */
	struct base_link images; /* each in turn is the first to be served */
	unsigned n_images, n_vms;
	unsigned n_demand;     /* chunks that are WANTED, or READING because they were */
	unsigned n_background; /* background reads in the ring */
	struct uffd_read reads[UFFD_LARGE_BUFFERS + UFFD_SMALL_BUFFERS]; /* one for each buffer */
	bool again; /* there is work left that no completion is going to announce */
};

/* --- control.c --- */

void uffd_control_init(struct uffd_control *control, int socket);
void uffd_control_deinit(struct uffd_control *control);
/* Waits for the socket, unless it does already. */
void uffd_control_arm(struct uffd_pager *pager);
/* The socket is ready: sends what waits, then takes requests. */
void uffd_control_ready(struct uffd_pager *pager);
/* Sends a reply or event, or keeps it until the socket takes it; in order. */
void uffd_control_send(struct uffd_pager *pager, const struct base_message *message);
/* A reply without arguments. text may be NULL. */
void uffd_control_reply(struct uffd_pager *pager, enum pager_op op, uint64_t sequence, int result,
			const char *text);

/* --- pager.c --- */

struct uffd_image *uffd_image_find(struct uffd_pager *pager, uint64_t id);
/* Takes an image to fill. Both descriptors are consumed, also on failure. 0: the reply to
 * `sequence` is sent later; -EEXIST, -EINVAL, -EMFILE, -ENOMEM. */
int uffd_image_new(struct uffd_pager *pager, const struct base_message *request, int memfd,
		   int file_fd, struct base_error *error);
/* Begins the end of an image; `sequence` is answered when nothing of it is left. */
void uffd_image_gone(struct uffd_image *image, uint64_t sequence);
/* Goes on to the next state if it is time. Returns when to be called again at the latest, or
 * UINT64_MAX. */
uint64_t uffd_image_advance(struct uffd_image *image);
/* Nobody is going to tell anything of the images any more: ends those that no VM uses and fills the
 * others as fast as can be. */
void uffd_images_orphaned(struct uffd_pager *pager);
/* Of an orphaned pager: no image is being filled any more. */
bool uffd_images_done(const struct uffd_pager *pager);
/* Pages of chunk n are in the memfd now. */
void uffd_image_present(struct uffd_image *image, uint64_t n, uint16_t pages,
			bool from_working_set);
/* Says so, and reads no more of it. Once is enough; r is negative. text may be NULL. */
void uffd_image_fail(struct uffd_image *image, int r, const char *text);
/* Fills in arg[0] to arg[7] as PAGER_OP_COUNTERS says. */
void uffd_image_count(const struct uffd_image *image, uint64_t arg[BASE_MESSAGE_ARGS]);
/* Bytes of guest memory that chunk n covers. */
static inline uint64_t uffd_image_covers(const struct uffd_image *image, uint64_t n)
{
	return MIN(SNAPSHOT_CHUNK_BYTES, image->bytes - n * SNAPSHOT_CHUNK_BYTES);
}
/* The pages it has, as in struct uffd_chunk. */
static inline uint16_t uffd_image_pages(const struct uffd_image *image, uint64_t n)
{
	return (uint16_t)((1U << (uffd_image_covers(image, n) / SNAPSHOT_PAGE_BYTES)) - 1);
}

/* --- fault.c --- */

/* Takes a VM; uffd is consumed, also on failure. 0, 1: the image is complete, the VM was let go at
 * once; -EEXIST, -EINVAL, -EMFILE, -ENOMEM. */
int uffd_vm_new(struct uffd_image *image, uint64_t id, uint64_t address, int uffd,
		struct base_error *error);
struct uffd_vm *uffd_vm_find(struct uffd_image *image, uint64_t id);
/* Forgets it. The registration stays, unless this was the last descriptor of the userfaultfd. */
void uffd_vm_drop(struct uffd_vm *vm);
/* Ends its registration, which wakes whoever waits, and forgets it. */
void uffd_vm_release(struct uffd_vm *vm);
/* Begins to take its faults. */
void uffd_vm_read(struct uffd_vm *vm);
/* The read of its userfaultfd has ended with this result. The VM may be freed by it. */
void uffd_vm_fault(struct uffd_vm *vm, int result);
/* Wakes whoever waits for chunk n. */
void uffd_vm_wake_chunk(struct uffd_image *image, uint64_t n);

/* --- schedule.c --- */

/* Starts reads while there are buffers and wishes. Returns when it wants to be called again even if
 * nothing happens: CLOCK_MONOTONIC, or UINT64_MAX. */
uint64_t uffd_schedule(struct uffd_pager *pager);
/* A read has ended: hands its pieces to the workers. */
void uffd_schedule_read_done(struct uffd_read *read, int result);
/* A fault waits for chunk n, which is stored and not present. */
void uffd_schedule_want(struct uffd_image *image, uint64_t n);
/* Forgets what faults asked for and nobody reads yet; before the image leaves FILLING early. */
void uffd_schedule_forget(struct uffd_image *image);

/* --- fill.c --- */

/* The job of a piece: checks it and writes it into the memfd. Any thread. */
void uffd_fill_run(struct uffd_job *job, uint8_t *scratch);
/* Allocates a zero chunk, so that it is no hole any more. 0 or -errno. */
int uffd_fill_zero(const struct uffd_image *image, uint64_t n);
