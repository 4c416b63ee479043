/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Making a restored VM unlike its siblings: entropy, wall clock, names. What touches the kernel
 * goes through a table of operations, so that everything around it is the same code in a test,
 * which must not step the clock or rename the machine it runs on.
 */

#include "base/util.h"
#include "guest/agent.h"

#include <time.h>

#define AGENT_MACHINE_ID_CHARS 32
#define AGENT_BOOT_ID_CHARS    36
/* HOST_NAME_MAX of Linux. */
#define AGENT_HOSTNAME_MAX 64
/* 10 MHz to 100 GHz. */
#define AGENT_TSC_KHZ_MIN 10000
#define AGENT_TSC_KHZ_MAX 100000000

struct agent_identity_params {
	uint8_t seed[GUEST_SEED_BYTES];
	char machine_id[AGENT_MACHINE_ID_CHARS + 1];
	char boot_id[AGENT_BOOT_ID_CHARS + 1];
	char hostname[AGENT_HOSTNAME_MAX + 1];
	uint64_t generation;
	uint64_t realtime_ns;
	uint64_t tsc;
	uint64_t tsc_khz;
};

/* Each 0 or -errno. */
struct agent_identity_ops {
	int (*add_entropy)(void *userdata, const uint8_t *seed, size_t size);
	int (*reseed)(void *userdata);
	int (*set_realtime)(void *userdata, const struct timespec *now);
	int (*set_hostname)(void *userdata, const char *name);
	uint64_t (*read_tsc)(void *userdata);
};

struct agent_identity {
	const struct agent_identity_ops *ops;
	void *userdata;
	/* One shared page of each file, or NULL. Written in place: no system call, and readers of
	 * the file see it at once. */
	char *machine_id;
	char *boot_id;
};

/* The operations on the running kernel; userdata points to an int, a descriptor of /dev/urandom. */
extern const struct agent_identity_ops agent_identity_kernel_ops;

/* Makes the two files in the directory, of their final size, and maps them. 0 or -errno. */
int agent_identity_create_files(struct agent_identity *identity, const char *machine_id_path,
				const char *boot_id_path);

/* realtime_ns plus the time that passed while the TSC went from tsc to now. 0 or -ERANGE. */
int agent_identity_clock(const struct agent_identity_params *params, uint64_t now_tsc,
			 struct timespec *ret_now);

/*
 * Applies all of it, in this order: entropy, reseed, clock, machine id, boot id, host name. Stops
 * at the first failure: -errno with *ret_step saying what could not be done.
 */
int agent_identity_apply(struct agent_identity *identity,
			 const struct agent_identity_params *params, const char **ret_step);
