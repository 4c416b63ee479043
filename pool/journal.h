/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The journal of leases: what a successor of this manager has to know, on a file.
 *
 * It is of one boot of the host: when the host goes, so do its VMs. Hence a record is safe once it
 * is written, without a sync. docs/formats.md describes the file:
 *
 *    header   magic, version, boot id, checksum               JOURNAL_HEADER_BYTES
 *    record   magic, type, length, 0, checksum, payload       JOURNAL_RECORD_HEADER_BYTES + length
 *    ...
 *
 * A payload is a msgpack map. A reader looks for the next record whose checksum is right, so damage
 * costs what it hits; a record that was cut off is damage at the end. No string that comes from
 * outside can look like a record's header: that has bytes of zero, which strings have not.
 */

#include "base/bytes.h"
#include "base/error.h"
#include "pool/launch.h"
#include "pool/pool.h"

#define POOL_JOURNAL_MAGIC		 "WARMBOXJ"
#define POOL_JOURNAL_VERSION		 1
#define POOL_JOURNAL_BOOT_ID_BYTES	 36 /* of text */
#define POOL_JOURNAL_HEADER_BYTES	 64
#define POOL_JOURNAL_RECORD_MAGIC	 UINT32_C(0x524a4257) /* "WBJR" */
#define POOL_JOURNAL_RECORD_HEADER_BYTES 24
/* All labels at their limits, and the rest. */
#define POOL_JOURNAL_PAYLOAD_MAX KIB(32)
/* A file above is not read, and not made: leases are refused. */
#define POOL_JOURNAL_BYTES_MAX MIB(64)

enum pool_journal_type {
	POOL_JOURNAL_PAGER = 1, /* pid, start_ticks: the pager was started */
	POOL_JOURNAL_STARTED,	/* id, pid, start_ticks: a VMM was */
	/* It was leased: what STARTED says, and all that is said of a lease. */
	POOL_JOURNAL_LEASED,
	POOL_JOURNAL_RENEWED, /* id, ttl_ms, expires_ns */
	POOL_JOURNAL_ENDED,   /* id, cause: the lease did */
};

#define POOL_JOURNAL_TOKEN_MAX	64
#define POOL_JOURNAL_TENANT_MAX 128

struct pool_journal_record {
	enum pool_journal_type type;
	char id[POOL_SANDBOX_ID_LENGTH + 1];
	int pid;
	uint64_t
		start_ticks; /* of /proc/PID/stat: with the pid it names one process of this boot */
	char token[POOL_JOURNAL_TOKEN_MAX + 1], tenant[POOL_JOURNAL_TENANT_MAX + 1];
	char template_name[SNAPSHOT_NAME_MAX + 1];
	char snapshot_id[SNAPSHOT_ID_LENGTH + 1];
	char socket_path[POOL_SOCKET_PATH_MAX];
	uint64_t acquired_ns, expires_ns; /* CLOCK_REALTIME; 0: never */
	uint64_t ttl_ms;
	bool bound; /* it ends with its client's connection */
	char cause[32];
	/* Borrowed by an encoder; of a record that was read valid during the call. */
	const struct pool_label *labels;
	size_t n_labels;
};

/* --- journal_format.c: bytes; no state, any thread --- */

void pool_journal_put_header(struct base_writer *writer, const char *boot_id);
void pool_journal_put(struct base_writer *writer, const struct pool_journal_record *record);

struct pool_journal_found {
	uint64_t n_records;
	uint64_t damaged_bytes, damaged_at; /* the first of them */
};

/*
 * Calls fn for every record that can be read, in order. 0; -EBADMSG: this is no journal, or its
 * header is damaged; -ENOTSUP: of another version; -ESTALE: of another boot of the host. fn is not
 * called then.
 */
int pool_journal_parse(const void *data, size_t size, const char *boot_id,
		       void (*fn)(void *userdata, const struct pool_journal_record *record),
		       void *userdata, struct pool_journal_found *ret_found);

/* --- journal.c: the file --- */

struct pool_journal {
	char *path; /* NULL: not initialized */
	int fd;	    /* locked; -1: there is none now */
	uint64_t size;
	uint64_t n_records;
	uint64_t retry_ns; /* a new file is not tried before */
	struct base_writer buffer;
	char boot_id[POOL_JOURNAL_BOOT_ID_BYTES + 1];
	/* Puts the records of all that lives now, for a new file; returns how many. */
	uint64_t (*fill)(struct pool_journal *journal, struct base_writer *writer);
	char trouble[BASE_ERROR_TEXT_MAX]; /* why the last record could not be written; empty: it
					      could */
};

/* path is copied. Touches no file. 0 or -errno with the reason in error. */
int pool_journal_init(struct pool_journal *journal, const char *path,
		      uint64_t (*fill)(struct pool_journal *journal, struct base_writer *writer),
		      struct base_error *error);
/* Takes a zeroed one, too. The file stays. */
void pool_journal_deinit(struct pool_journal *journal);

/* What a predecessor has left; as pool_journal_parse(). -ENOENT: nothing. -EADDRINUSE: another
 * process has it open. -EFBIG, or the -errno of a read. */
int pool_journal_read(struct pool_journal *journal,
		      void (*fn)(void *userdata, const struct pool_journal_record *record),
		      void *userdata, struct pool_journal_found *ret_found);

/* Writes a new file with what `fill` says, and puts it in the place of the one that is there. The
 * old one stays when that fails. 0 or -errno, which is also the trouble. */
int pool_journal_rewrite(struct pool_journal *journal);

/*
 * Adds a record: once this returns 0, a successor knows it. Else -errno, with the words in
 * journal->trouble, and no successor knows it. Without a file, or when that is too large, a new one
 * is tried first, but not at every call.
 */
int pool_journal_append(struct pool_journal *journal, const struct pool_journal_record *record);

/* Most of it is about what is over, when so many sandboxes live. */
bool pool_journal_is_stale(const struct pool_journal *journal, uint64_t n_live);

/* Nothing is left for a successor. */
void pool_journal_remove(struct pool_journal *journal);
