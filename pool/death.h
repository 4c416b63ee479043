/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a manager leaves to its successor; part of the pool's configuration. */

#include <stdint.h>

struct pool_death_config {
	const char *journal_path;   /* NULL: "journal" in the runtime directory */
	uint64_t orphan_timeout_ms; /* how long a leased VM waits for a successor; 0: the default */
};
#define POOL_ORPHAN_TIMEOUT_MS 300000
