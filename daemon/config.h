/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The daemon's configuration: an INI file, described in warmboxd.conf(5).
 *
 * What is not known in it is an error, and so is a key that is given twice: a misspelt limit is
 * never silently ignored.
 */

#include "base/error.h"
#include "daemon/tenants.h"

#include <stdbool.h>
#include <stdint.h>

#define DAEMON_CONFIG_PATH	    "/etc/warmbox/warmboxd.conf"
#define DAEMON_RUNTIME_DIR	    "/run/warmbox"
#define DAEMON_STORE		    "/var/lib/warmbox"
#define DAEMON_SOCKET_NAME	    "warmboxd.sock" /* in the runtime directory, unless configured */
#define DAEMON_TEMPLATES_MAX	    256		    /* sections of templates */
#define DAEMON_CONCURRENCY_MAX	    1024
#define DAEMON_TIMEOUT_MAX_MS	    86400000 /* a day */
#define DAEMON_DEFAULT_MIN	    2
#define DAEMON_DEFAULT_MAX	    64
#define DAEMON_MEMORY_FLOOR	    5 /* per cent */
#define DAEMON_DEFAULT_SHELLS	    1
#define DAEMON_RESTORE_NICE	    10
#define DAEMON_CPU_PERCENT_MAX	    102400
#define DAEMON_MEMORY_MAX_MIB	    16777216
#define DAEMON_MEMORY_OVERHEAD_MIB  64
#define DAEMON_PIDS_MAX		    32768
#define DAEMON_PIDS		    64 /* beside one for each vCPU: what io_uring and KVM start */
#define DAEMON_PRIORITY		    -5 /* nice value, of the helper programs as well */
#define DAEMON_FILL_LIMIT_MAX_MIB   1048576
#define DAEMON_NICE_MAX		    19
#define DAEMON_IDENTITY_TIMEOUT_MS  30000
#define DAEMON_ACQUIRE_TIMEOUT_MS   10000
#define DAEMON_ORPHAN_TIMEOUT_S	    300
#define DAEMON_ORPHAN_TIMEOUT_MAX_S 86400

#define DAEMON_DISK_MAX_MIB	 8192
#define DAEMON_DISK_MAX_IOPS	 1000000000
#define DAEMON_CONSOLE_MAX_KIB	 1048576
#define DAEMON_CONSOLE_KIB	 64
#define DAEMON_VSOCK_CONNECTIONS 256
#define DAEMON_VSOCK_BUFFER_KIB	 16384
#define DAEMON_TTL_MAX_S	 2592000 /* 30 days, as of a request */

/* How many sandboxes to keep parked, and shells. A target is a minimum and a maximum in one. */
struct daemon_keep {
	unsigned target, min, max, shells; /* DAEMON_UNSAID until daemon_config_complete() */
};
#define DAEMON_UNSAID UINT32_MAX

/* What a sandbox may take. Of [limits], and of templates where they say otherwise. */
struct daemon_limits {
	/* DAEMON_UNSAID until daemon_config_complete() */
	unsigned cpu_percent, cpu_weight, memory_mib, memory_overhead_mib, swap_mib, pids,
		io_weight;
	unsigned disk_mib_s, disk_burst_mib, disk_iops, disk_iops_burst, console_kib_s,
		vsock_connections, vsock_buffer_kib, ttl_max_s;
};

/* [template NAME] */
struct daemon_template {
	char *name;
	struct daemon_keep keep;
	struct daemon_limits limits;
};

/* From the first to the last. */
struct daemon_uids {
	unsigned first, last;
};

/* Strings are owned; NULL: not said. */
struct daemon_config {
	char *socket;
	char *group;
	char *runtime_dir;
	char *store;
	char *vmm;
	char *spawner;
	char *pager;
	char *journal;		   /* of leases; NULL: in runtime_dir */
	unsigned orphan_timeout_s; /* at least 1 */
	struct daemon_keep keep;   /* of templates that do not say */
	struct daemon_limits limits;
	unsigned cgroups; /* enum pool_cgroups_use */
	unsigned memory_floor_percent;
	unsigned restore_nice;
	unsigned touch;		      /* enum pool_touch */
	unsigned fill_limit_mib;      /* a second; 0: none */
	unsigned restore_concurrency; /* 0: the number of cores */
	unsigned jail_level;	      /* enum pool_jail_level */
	unsigned jail_network;	      /* enum pool_jail_network */
	struct daemon_uids jail_uids;
	uint64_t identity_timeout_ms;
	uint64_t acquire_timeout_ms;
	struct daemon_template *templates;
	size_t n_templates;
	struct daemon_tenants tenants;
};

/* Sets the numbers to their defaults. */
void daemon_config_init(struct daemon_config *config);
void daemon_config_deinit(struct daemon_config *config);

/*
 * Reads the file at path into an initialized config. -ENOENT without a message when it is absent;
 * -EINVAL with "path:line: …" for the first thing that is wrong in it, or "path: …" when that is no
 * single line.
 */
int daemon_config_load(struct daemon_config *config, const char *path, struct base_error *error);

/* Sets a string that the command line gave. 0 or -ENOMEM. */
int daemon_config_override(char **field, const char *value);

/* Fills in what nobody said: directories, the socket's path, what to keep. 0 or -ENOMEM. */
int daemon_config_complete(struct daemon_config *config);
